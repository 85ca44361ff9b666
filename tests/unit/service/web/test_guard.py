"""After logging in one goes to a page of ours or home, never anywhere else."""

from __future__ import annotations

import pytest

from service.web.guard import safe_next


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/packs",
        "/inventory",
        "/inventory?show=tools&unused=1",
        "/agents/finance-bot",
        "/approvals",
        "/approvals/01a1fcad-9ff9-750b-91ac-898a54d423a5",
        "/drift",
        "/drift/01a1fcad-9ff9-750b-91ac-898a54d423a5",
        "/drift/agents/finance-bot",
        "/docs/api",
        "/?agent=finance-bot&before=12",
        "/decisions/01a1fcad-9ff9-750b-91ac-898a54d423a5",
        "/containments/01a1fcad-9ff9-750b-91ac-898a54d423a5",
        "/sessions/" + "5" * 32,
    ],
)
def test_pages_of_ours_are_gone_to(path):
    assert safe_next(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/%2f/evil.example",
        "javascript:alert(1)",
        "/decisions/../../logout",
        "/containments/../../logout",
        "/containments/",
        "/approvals/01a1fcad-9ff9-750b-91ac-898a54d423a5/verdict",
        "/drift/01a1fcad-9ff9-750b-91ac-898a54d423a5/close",
        "/drift/agents/finance-bot/order",
        "/drift/agents/../../logout",
        "/containments/01a1fcad-9ff9-750b-91ac-898a54d423a5/release",
        "/login?next=//evil.example",
        "/logout",
        "/?x=\r\nSet-Cookie: a=b",
        "/?\u202e",
        "/?" + "x" * 2000,
        "/sessions/" + "g" * 32,
        "/@evil.example",
        "/ ",
    ],
)
def test_anything_else_leads_home(path):
    assert safe_next(path) == "/"
