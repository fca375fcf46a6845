"""A function in a process of its own: Ray's driver and compiled code can end the process that they run in, without a word."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks

CALL = f"""
import pickle, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
folder = Path(sys.argv[1])
function, arguments = pickle.loads((folder / "call").read_bytes())
try:
    result = function(*arguments), None
except Exception as error:
    result = None, error
(folder / "result").write_bytes(pickle.dumps(result))
"""


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, which a module of `tests` or of n2kit holds, in a process of its own; what it raises is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "call").write_bytes(pickle.dumps((function, arguments)))
        done = forks.run(["-c", CALL, folder])
        assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
        value, error = pickle.loads((Path(folder) / "result").read_bytes())
    if error is not None:
        raise error
    return value
