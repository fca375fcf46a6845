"""The variables by which a launcher (torchrun, accelerate) tells each process its place among several."""

from __future__ import annotations

import os

from n2kit.errors import BadInput

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where the processes meet
OF_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # accelerate reads these, too


def is_launched() -> bool:
    """Tell whether a launcher started this process as one of several."""
    numbers = [os.environ.get(name, "") for name in NUMBERS[:2]]
    return all(map(str.isdigit, numbers)) and int(numbers[1]) > 1 and all(name in os.environ for name in MEETING)


def check_launcher() -> None:
    """Check that these variables are all set, as a launcher sets them, or none that matters.

    A scheduler that sets some of them makes torch wait for processes that nobody started, and so does `mpirun -n 4 n2kit …`.

    Raises:
        BadInput: some are missing, or are no numbers; MPI started this process as one of several.
    """
    for name in OF_MPI:
        if os.environ.get(name, "1") != "1" and not is_launched():
            what = (
                f"{name}={os.environ[name]} in the environment: MPI started this process, and n2kit does not speak MPI"
            )
            raise BadInput(
                what, f"start it by torchrun --nproc-per-node N -m n2kit_cli.main …, or as one process: unset {name}"
            )
    given = [name for name in NUMBERS if name in os.environ]
    if not given or (given == ["WORLD_SIZE"] and os.environ["WORLD_SIZE"] == "1"):
        return
    hint = f"start it by torchrun --nproc-per-node N -m n2kit_cli.main …, or as one process: unset {' '.join(given)}"
    if wrong := next((name for name in given if not os.environ[name].isdigit()), None):
        raise BadInput(f"{wrong}={os.environ[wrong]!r} in the environment is no number", hint)
    if lacking := [name for name in (*NUMBERS[:2], *MEETING) if name not in os.environ]:
        what = f"{' and '.join(given)} in the environment, but no {' and '.join(lacking)}"
        raise BadInput(f"{what}: no launcher started this process", hint)
