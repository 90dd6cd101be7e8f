"""What browsers are told with every response, so that a page of ours can do no more than it has to.

The page has no inline script and no inline style, loads nothing from elsewhere and is shown in no frame.
"""

from starlette.types import Scope

DOCS = "/docs"  # of an open dev service alone; its page loads Swagger UI from elsewhere

_CONTENT = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers that know no frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def security_headers(scope: Scope) -> dict[str, str]:
    """The headers of a response to that request."""
    headers = dict(_HEADERS)
    if scope["path"] != DOCS:
        headers["Content-Security-Policy"] = _CONTENT
    if scope["scheme"] == "https":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    if scope["path"].startswith(("/api/", "/v1/")):
        headers["Cache-Control"] = "no-store"
    return headers
