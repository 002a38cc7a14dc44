"""The page at `/` and its files under `/assets`: static, without a build step or requests to other hosts."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from offsft.report.palette import css_variables

FOLDER = Path(__file__).parent / "page"
TYPES = {"page.css": "text/css", "page.js": "text/javascript", "palette.css": "text/css"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

page_router = APIRouter(include_in_schema=False)


def palette_css() -> str:
    """The report's colours for both colour schemes as CSS variables."""
    light, dark = css_variables("light"), css_variables("dark")
    return (
        f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def answer(request: Request, body: bytes, media_type: str) -> Response:
    """The file with its ETag, or 304 if the browser has it; browsers ask each time, so none shows a stale page."""
    headers = {**HEADERS, "ETag": f'"{hashlib.sha256(body).hexdigest()[:20]}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


@page_router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return answer(request, (FOLDER / "index.html").read_bytes(), "text/html")


@page_router.get("/assets/{name}")
def asset(name: str, request: Request) -> Response:
    """A file of the page by its exact name; 404 for any other name."""
    if name not in TYPES:
        error = b'{"error": {"message": "no such file", "type": "not_found", "param": null, "code": null}}'
        return Response(error, 404, HEADERS, "application/json")
    body = palette_css().encode() if name == "palette.css" else (FOLDER / name).read_bytes()
    return answer(request, body, TYPES[name])
