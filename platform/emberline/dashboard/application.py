"""The dashboard's addresses, each at the root and under /dashboard, where the router passes them on as they are."""

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from emberline.dashboard.views import Views
from emberline.errors import EmberlineError

PREFIX = "/dashboard"
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
}


def application(views: Views) -> Starlette:
    """The ASGI application."""

    async def listing(_request: Request) -> Response:
        return _html(await run_in_threadpool(views.listing))

    async def page(request: Request) -> Response:
        return _html(await run_in_threadpool(views.page, request.path_params["experiment"]))

    async def numbers(request: Request) -> Response:
        try:
            found = await run_in_threadpool(views.as_json, request.path_params["experiment"])
        except EmberlineError as error:
            return JSONResponse({"error": error.fact, "hint": error.hint}, 503, _HEADERS)
        return JSONResponse(found, headers=_HEADERS) if found else _missing()

    async def health(_request: Request) -> Response:
        return JSONResponse({"live": True})

    async def with_slash(request: Request) -> Response:
        return RedirectResponse(f"{request.url.path}/")  # links of the pages are relative

    routes = [
        Route("/", listing),
        Route("/livez", health),
        Route("/api/{experiment:str}.json", numbers),
        Route("/{experiment:str}", page),
    ]
    return Starlette(routes=[Route(PREFIX, with_slash), Mount(PREFIX, routes=list(routes)), *routes])


def _html(content: str | None) -> Response:
    return HTMLResponse(content, headers=_HEADERS) if content is not None else _missing()


def _missing() -> Response:
    return JSONResponse({"error": "there is no experiment of this name"}, 404, _HEADERS)
