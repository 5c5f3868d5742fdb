"""The pages' server: a few addresses, each of which does one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from cnn_interp.disentangling.part_graph import Verdict
from cnn_interp.middle_to_end.dialogue import StaleAnswer
from cnn_interp.middle_to_end.page.classroom import TRY_BYTES, Classroom
from cnn_interp.middle_to_end.page.editing_room import EditingRoom
from cnn_interp.middle_to_end.page.guard import Guard
from interpretkit.errors import InputError

_HERE = Path(__file__).parent
_TEACH, _EDIT = ("teach", "page.html", "Teach a part"), ("edit", "edit.html", "Edit the network")
# What the pages are made of: nothing else is read from the disk, whatever is asked for.
_FILES = {"page.css": "text/css", "shared.js": "text/javascript", "page.js": "text/javascript",
          "edit.js": "text/javascript"}  # fmt: skip
_VIEWS = "<!-- views -->"
_Pixel = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class _Numbered(BaseModel):
    """What is said, and to which question."""

    model_config = ConfigDict(extra="forbid", strict=True)
    number: int = Field(ge=0, le=10**9)


class _Said(_Numbered):
    verdict: Verdict
    box: list[_Pixel] | None = Field(default=None, min_length=4, max_length=4)
    template: int | None = Field(default=None, ge=0, le=10**6)


class _Line(_Numbered):
    line: str = Field(min_length=1, max_length=1000)


def page_application(
    room: Classroom | None,
    editing: EditingRoom | None,
    token: str,
    hosts: Sequence[str],
    stop: Callable[[], None],
) -> Guard:
    """Return the server's application.

    Parameters
    ----------
    room : Classroom, optional
        The dialogue about a part.
    editing : EditingRoom, optional
        The session about a network's patterns. One of both there must be; the first is what the address opens.
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
        asked = editing if request.url.path.startswith("/edit/") else room
        return JSONResponse({"error": str(error), "state": None if asked is None else asked.state()}, 409)

    @application.exception_handler(InputError)
    def wrong(request: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @application.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        places = [".".join(str(step) for step in one["loc"] if step != "body") for one in error.errors()]
        return JSONResponse({"error": f"cannot be understood: {', '.join(places)[:200]}"}, 422)

    def fixed(content: bytes, kind: str) -> Callable[[], Response]:
        return lambda: Response(content, media_type=kind)

    for name, kind in _FILES.items():
        application.add_api_route(f"/{name}", fixed((_HERE / name).read_bytes(), kind), methods=["GET"])
    views = [view for view, given in ((_TEACH, room), (_EDIT, editing)) if given is not None]
    for view in views:
        content = (_HERE / view[1]).read_text(encoding="utf-8").replace(_VIEWS, _links(views, view))
        for path in ("/", f"/{view[0]}") if view is views[0] else (f"/{view[0]}",):
            application.add_api_route(path, fixed(content.encode(), "text/html"), methods=["GET"])

    @application.post("/stop")
    def stopped(said: _Numbered) -> Any:
        stop()
        return JSONResponse({"stopped": True})

    if room is not None:
        _teaching(application, room)
    if editing is not None:
        _editing(application, editing)
    return Guard(application, token, hosts, {"/try": TRY_BYTES})


def _links(views: Sequence[tuple[str, str, str]], here: tuple[str, str, str]) -> str:
    """Return the links from one view to all, as HTML; nothing where there is one."""
    if len(views) < 2:
        return ""
    links = []
    for view in views:
        current = ' aria-current="page"' if view is here else ""
        links.append(f'<a href="{view[0]}"{current}>{view[2]}</a>')
    return f'<nav aria-label="Views">{" ".join(links)}</nav>'


def _zipped(content: bytes, name: str) -> Response:
    return Response(
        content,
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _teaching(application: FastAPI, room: Classroom) -> None:
    """Add what the view has on which a part is taught."""

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
        return _zipped(room.export(), "taught.zip")


def _editing(application: FastAPI, editing: EditingRoom) -> None:
    """Add what the view has on which a network's patterns are judged."""

    @application.get("/edit/state")
    def state() -> Any:
        return JSONResponse(editing.state())

    @application.get("/edit/pattern")
    def pattern(word: Annotated[str, Query(max_length=100)]) -> Any:
        return JSONResponse(editing.pattern(word))

    @application.get("/edit/patch/{number}/{rank}")
    def patch(number: int, rank: int) -> Response:
        return Response(editing.patch(number, rank), media_type="image/jpeg")

    @application.get("/edit/image/{image}")
    def image(image: int) -> Response:
        return Response(editing.picture(image), media_type="image/jpeg")

    @application.post("/edit/say")
    def say(said: _Line) -> Any:
        editing.say(said.number, said.line)
        return JSONResponse(editing.state())

    @application.post("/edit/undo")
    def undo(said: _Numbered) -> Any:
        editing.undo(said.number)
        return JSONResponse(editing.state())

    @application.post("/edit/refit")
    def refit(said: _Numbered) -> Any:
        editing.refit(said.number)
        return JSONResponse(editing.state())

    @application.post("/edit/more")
    def more(said: _Numbered) -> Any:
        editing.more()
        return JSONResponse(editing.state())

    @application.get("/edit/edit.zip")
    def export() -> Response:
        return _zipped(editing.export(), "edit.zip")
