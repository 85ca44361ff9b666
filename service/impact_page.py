"""The report of an impact as a page that stands alone: one file, no script, nothing fetched from anywhere.

It looks as the dashboard does, whose style sheet it carries. Text of the log is hostile: whatever the template prints
is made legible and escaped (`service.web.rendering`).
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import Final

import jinja2
from markupsafe import Markup

from policies.impact_report import ImpactReport
from service.impact_orders import ImpactJob
from service.web.assets import Assets
from service.web.rendering import make_environment
from service.wiring.services import Services

__all__ = ["LISTED", "impact_page"]

LISTED: Final = 500
"""Flips that the page lists; the downloaded list has all."""

_TITLES: Final = (("rules", "Rule or reason"), ("agents", "Agent"), ("tools", "Tool"), ("servers", "Server"))


@cache
def _template() -> jinja2.Template:
    assets = Assets()
    environment = make_environment(assets)
    style = assets.at(assets.url("style.css"))
    assert style is not None  # it is one of the files that `Assets` has read
    # Ours, and no markup can end it: a style sheet of the package, not text of the log.
    environment.globals["style"] = Markup(style.data.decode())  # noqa: S704  # see above
    return environment.get_template("impact_report.html")


def impact_page(services: Services, job: ImpactJob) -> bytes:
    """Return the page of an impact that is done.

    Raises:
        EvidenceError: A file of it cannot be read.
    """
    report = services.impacts.files.report(job.job_id)
    lines = services.impacts.files.lines(job.job_id, job.attempt)
    flips = list(islice((line for line in lines if line.flip is not None), LISTED))
    identity = services.identity
    return (
        _template()
        .render(
            job=job,
            report=report,
            flips=flips,
            all_flips=_flipped(report),
            titles=_TITLES,
            log_id=identity.log_id,
            tenant=identity.tenant,
            environment=identity.environment,
            origin=services.settings.origin,
            simulated=identity.simulated,
        )
        .encode()
    )


def _flipped(report: ImpactReport) -> int:
    return sum(kind.count for kind in report.flips.values())
