"""What a training says while it runs, and how it stops."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback

from n2kit.train import ranks

Report = Callable[[dict[str, Any]], None]


class Events(TrainerCallback):
    """Reports every log entry with the step and the speed; stops after the current step on Ctrl-C.

    Of several processes only the first reports, and all stop when one is told to.
    """

    def __init__(self, report: Report | None, precision: str, grad_cache: int | None = None) -> None:
        self.report, self.precision, self.stopped = report, precision, False
        self.how = {"grad_cache": grad_cache} if grad_cache else {}
        self.begun = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = (time.perf_counter(), state.global_step)
        how = self.how | ({"processes": ranks.count()} if ranks.count() > 1 else {})
        about = {"step": state.global_step, "steps": state.max_steps, "precision": self.precision}
        self._send({"event": "start"} | about | how)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "train_runtime" in logs:
            return
        start, first = self.begun
        pace = (time.perf_counter() - start) / max(1, state.global_step - first)
        values = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        kind = "recall" if any(k.startswith("eval_recall") for k in values) else "step"
        rest = {"steps": state.max_steps, "eta_s": round(pace * (state.max_steps - state.global_step), 1)}
        items = 2 * args.per_device_train_batch_size * ranks.count()
        speed = {"items_per_s": round(items / pace, 1)} if pace else {}
        self._send({"event": kind, "step": state.global_step} | rest | speed | values)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if ranks.anywhere(self.stopped, args.device):
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def note(self, text: str) -> None:
        """A remark for people, which is also kept with the events."""
        self._send({"event": "note", "text": text})

    def _send(self, event: dict[str, Any]) -> None:
        if self.report and ranks.first():
            self.report(event)

    @contextlib.contextmanager
    def stop_on_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C finishes the step and saves; a second one stops at once."""

        def stop(*_: Any) -> None:
            if self.stopped and ranks.count() > 1:
                return  # a launcher passes the signal on that the terminal has sent already
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            self._send({"event": "interrupt"})

        try:
            before = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not in the main thread
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
