# syntax=docker/dockerfile:1

# Base images are pinned by tag. To pin the bytes as well, add the digest that `docker buildx imagetools inspect` prints
# for the tag; it is not here because this file was written where no image registry can be reached.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- build: a virtual environment with hash-checked packages and Tallystick's wheel --------------------------------
FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/tallystick
WORKDIR /src

# Packages come before the source: they change less often, and so does this layer.
COPY requirements/runtime.txt requirements/
RUN /opt/tallystick/bin/pip install --require-hashes --requirement requirements/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY ledger ledger
COPY policies policies
COPY enforcement enforcement
COPY evidence evidence
COPY reports reports
COPY service service
COPY migrations migrations
# What builds the wheel is locked with the packages but stays behind; `pip check` fails if anything needs it after all.
RUN /opt/tallystick/bin/pip install --no-deps --no-build-isolation . \
    && /opt/tallystick/bin/pip uninstall --yes hatchling editables packaging pathspec pluggy trove-classifiers \
    && /opt/tallystick/bin/pip check \
    && /opt/tallystick/bin/python -m compileall -q /opt/tallystick/lib

# --- run ------------------------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS run

# WeasyPrint's text libraries; the report's fonts are in the package.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 \
    && rm -rf /var/lib/apt/lists/*

# No shell, no home, and a number that does not clash with a user of the host.
RUN groupadd --gid 10001 tallystick \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin tallystick \
    && install --directory --owner=tallystick --group=tallystick --mode=0700 \
        /var/lib/tallystick /var/lib/tallystick-gateway /etc/tallystick/keys

COPY --from=build /opt/tallystick /opt/tallystick
COPY --chmod=0755 scripts/container-entrypoint.sh /usr/local/bin/container-entrypoint
COPY --chmod=0644 scripts/create_anchor_bucket.py /usr/local/lib/tallystick/

ENV PATH=/opt/tallystick/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp \
    TALLYSTICK_DATA_DIR=/var/lib/tallystick \
    TALLYSTICK_KEYS_DIR=/etc/tallystick/keys \
    TALLYSTICK_LISTEN=0.0.0.0:8787

USER 10001:10001
WORKDIR /var/lib/tallystick
# Mount volumes on /var/lib/tallystick and /etc/tallystick/keys. They are not declared here: each `docker run` of a
# command that needs neither would leave two nameless ones behind. 8787 is the service's port, 8788 a gateway's.
EXPOSE 8787 8788

HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8787/healthz', timeout=2)"]

ENTRYPOINT ["container-entrypoint"]
CMD ["tallystick", "serve"]
