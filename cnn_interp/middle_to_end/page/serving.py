"""The server of the pages, bound to this machine alone."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from cnn_interp.middle_to_end.page.application import page_application
from cnn_interp.middle_to_end.page.classroom import Classroom
from cnn_interp.middle_to_end.page.editing_room import EditingRoom
from cnn_interp.middle_to_end.page.guard import new_token
from interpretkit.errors import InputError

ADDRESS = "127.0.0.1"


def serve(
    room: Classroom | None = None,
    *,
    editing: EditingRoom | None = None,
    port: int = 0,
    token: str = "",
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until somebody ends the dialogue on it.

    Parameters
    ----------
    room : Classroom, optional
        The dialogue about a part, which the page opens with.
    editing : EditingRoom, optional
        The session about a network's patterns; another view of the page, or the only one without a classroom.
    port : int
        0 takes any that is free.
    token : str
        Which opens the page; a new one by default.
    ready : callable, optional
        Gets the page's address once it can be opened.

    Raises
    ------
    InputError
        If the port is taken.
    KeyboardInterrupt
        After Ctrl-C.
    """
    key = token or new_token()
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listening:
        # A port that a server before this one has just left is free.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port}: cannot be had ({error}); expected one that is free, or 0"
            ) from error
        listening.listen(128)
        own = listening.getsockname()[1]
        server: uvicorn.Server | None = None

        def stop() -> None:
            assert server is not None
            server.should_exit = True

        application = page_application(room, editing, key, [f"{ADDRESS}:{own}", f"localhost:{own}"], stop)
        server = uvicorn.Server(
            uvicorn.Config(
                application, log_level="error", access_log=False, server_header=False, date_header=False,
                lifespan="off", timeout_keep_alive=5, timeout_graceful_shutdown=3, limit_concurrency=400,
                h11_max_incomplete_event_size=32_768, http="h11", ws="none", loop="asyncio",
            )
        )  # fmt: skip
        if ready is not None:
            ready(f"http://{ADDRESS}:{own}/{key}/")
        server.run(sockets=[listening])
