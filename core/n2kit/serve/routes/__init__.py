"""The routes of the server, a file for each thing that can be asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from n2kit.serve.state import State


def _state(request: Request) -> State:
    state: State = request.app.state.n2kit
    return state


Served = Annotated[State, Depends(_state)]
