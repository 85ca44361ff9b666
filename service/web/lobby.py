"""The dashboard before it is known which log a visitor is for: what all logs share, and the way to each log's own.

Where several logs are served, what strangers see names none of them.
"""

from __future__ import annotations

from service.hosting import Hosting
from service.web.assets import Assets
from service.web.cookies import Cookies
from service.web.counts import NewestDecision, RecentCounts
from service.web.guard import Dashboard
from service.web.records import RecordCache
from service.web.rendering import Pages
from service.web.sessions import WebSessions
from service.web.throttle import LoginThrottle
from service.wiring import Services

__all__ = ["LogLobby"]


class LogLobby:
    """`service.web.guard.Lobby` over a hosting; one event loop owns it.

    Attributes:
        hosting: The logs.
        assets: Static files.
        cookies: Their names and flags.
        throttle: Of failed logins, over all logs.
    """

    def __init__(self, hosting: Hosting) -> None:
        """Make dashboards as they are asked for."""
        settings = hosting.settings
        self.hosting = hosting
        self.assets = Assets()
        self.cookies = Cookies(insecure=settings.insecure_cookies, session_seconds=settings.session_seconds)
        self.throttle = LoginThrottle()
        self._nobodys = Pages(None, self.assets)
        self._dashboards: dict[str, Dashboard] = {}

    @property
    def strangers(self) -> Pages:
        """Pages for visitors without a login: of the only log, or of none."""
        return self._nobodys if self.hosting.only is None else self._of(self.hosting.only).pages

    def dashboard(self, log_id: str | None) -> Dashboard | None:
        """Return the dashboard of a log that is open; see `Lobby.dashboard`."""
        if self.hosting.only is not None:
            return self._of(self.hosting.only)
        if log_id is None or not self.hosting.is_open(log_id):
            return None
        return self._of(self.hosting.find(log_id))

    def _of(self, services: Services) -> Dashboard:
        known = self._dashboards.get(services.identity.log_id)
        # A log that was opened again has other parts.
        if known is None or known.services is not services:
            known = self._dashboards[services.identity.log_id] = self._make(services)
        return known

    def _make(self, services: Services) -> Dashboard:
        log_id = services.identity.log_id
        records = RecordCache(services.reader)
        ends = NewestDecision(services.catalog, log_id, records) if services.identity.simulated else services.clock
        return Dashboard(
            services=services,
            pages=Pages(services, self.assets),
            sessions=WebSessions(
                services.database,
                services.clock,
                log_id,
                services.tokens,
                lifetime_seconds=services.settings.session_seconds,
            ),
            links=services.login_links,
            counts=RecentCounts(services.catalog, log_id, ends),
            records=records,
        )
