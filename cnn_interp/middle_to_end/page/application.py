"""The page's server: a few addresses, each of which does one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from cnn_interp.disentangling.part_graph import Verdict
from cnn_interp.middle_to_end.dialogue import StaleAnswer
from cnn_interp.middle_to_end.page.classroom import TRY_BYTES, Classroom
from cnn_interp.middle_to_end.page.guard import Guard
from interpretkit.errors import InputError

_HERE = Path(__file__).parent
# What the page is made of: nothing else is read from the disk, whatever is asked for.
_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"),
          "/page.js": ("page.js", "text/javascript")}  # fmt: skip
_Pixel = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class _Numbered(BaseModel):
    """What is said, and to which question."""

    model_config = ConfigDict(extra="forbid", strict=True)
    number: int = Field(ge=0, le=10**9)


class _Said(_Numbered):
    verdict: Verdict
    box: list[_Pixel] | None = Field(default=None, min_length=4, max_length=4)
    template: int | None = Field(default=None, ge=0, le=10**6)


def page_application(room: Classroom, token: str, hosts: Sequence[str], stop: Callable[[], None]) -> Guard:
    """Return the server's application.

    Parameters
    ----------
    room : Classroom
        The dialogue.
    token : str
        Which must stand first in every path.
    hosts : sequence of str
        By which the server may be called, with its port.
    stop : callable
        Called when somebody ends the dialogue.
    """
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @application.exception_handler(StaleAnswer)
    def stale(request: Request, error: StaleAnswer) -> JSONResponse:
        return JSONResponse({"error": str(error), "state": room.state()}, 409)

    @application.exception_handler(InputError)
    def wrong(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @application.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        places = [".".join(str(step) for step in one["loc"] if step != "body") for one in error.errors()]
        return JSONResponse({"error": f"cannot be understood: {', '.join(places)[:200]}"}, 422)

    def file(name: str, kind: str) -> Callable[[], Response]:
        content = (_HERE / name).read_bytes()
        return lambda: Response(content, media_type=kind)

    for path, (name, kind) in _FILES.items():
        application.add_api_route(path, file(name, kind), methods=["GET"])

    @application.get("/state")
    def state() -> Any:
        return JSONResponse(room.state())

    @application.get("/graph")
    def graph() -> Any:
        return JSONResponse(room.graph())

    @application.get("/image/{image}")
    def image(image: int) -> Response:
        return Response(room.picture(image), media_type="image/jpeg")

    @application.get("/patch/{image}")
    def patch(image: int, row: _Pixel, column: _Pixel, half: _Pixel) -> Response:
        return Response(room.patch(image, row, column, half), media_type="image/jpeg")

    @application.post("/answer")
    def answer(said: _Said) -> Any:
        room.answer(said.number, said.verdict, None if said.box is None else tuple(said.box), said.template)
        return JSONResponse(room.state())

    @application.post("/skip")
    def skip(said: _Numbered) -> Any:
        room.skip(said.number)
        return JSONResponse(room.state())

    @application.post("/undo")
    def undo(said: _Numbered) -> Any:
        room.undo(said.number)
        return JSONResponse(room.state())

    @application.post("/try")
    async def tried(request: Request) -> Any:
        content = await request.body()
        return JSONResponse(await run_in_threadpool(room.tried, content))

    @application.get("/export.zip")
    def export() -> Response:
        return Response(
            room.export(), media_type="application/zip",
            headers={"content-disposition": 'attachment; filename="taught.zip"'},
        )  # fmt: skip

    @application.post("/stop")
    def stopped(said: _Numbered) -> Any:
        stop()
        return JSONResponse({"stopped": True})

    return Guard(application, token, hosts, {"/try": TRY_BYTES})
