"""Reports of a running training, and its stop on a signal."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from n2kit.train import distributed
from n2kit.train.events import (
    Event,
    EventHandler,
    InterruptEvent,
    LogEvent,
    NoteEvent,
    RecallEvent,
    StartEvent,
    StepEvent,
)
from n2kit.utils.signals import signal_handlers

EVERY_SECONDS = 10.0  # there is a log entry this often, however few steps that are
SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a scheduler sends


class EventReporter(TrainerCallback):
    """A callback that reports every log entry with step and speed, and stops after the step on Ctrl-C or SIGTERM.

    Of several processes only the first reports, and all stop when one of them gets the signal.

    Args:
        report: called with each event as JSON; None: nobody listens.
        precision: the precision of the training, and why.
        grad_cache: items encoded at a time, if not all are.
        remark: a note that is reported at the start.
    """

    def __init__(
        self, report: EventHandler | None, precision: str, grad_cache: int | None = None, remark: str | None = None
    ) -> None:
        self.report, self.precision, self.grad_cache, self.remark = report, precision, grad_cache, remark
        self.stopped = False
        self.started, self.first_step, self.last_log = 0.0, 0, 0.0  # seconds, a step, seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = self.last_log = time.perf_counter()
        self.first_step = state.global_step
        processes = distributed.world_size()
        self.send(
            StartEvent(
                step=state.global_step,
                steps=state.max_steps,
                precision=self.precision,
                grad_cache=self.grad_cache or None,
                processes=processes if processes > 1 else None,
            )
        )
        if self.remark is not None:
            self.note(self.remark)

    def pace(self, state: Any, items: int) -> dict[str, float]:
        """Measure `eta_s`, `items_per_s` where a step takes `items`, and `memory_gb`: the device's, or on a CPU this process's."""
        pace = (time.perf_counter() - self.started) / max(1, state.global_step - self.first_step)
        taken = torch.cuda.memory_reserved() if torch.cuda.is_initialized() else psutil.Process().memory_info().rss
        return {
            "eta_s": round(pace * (state.max_steps - state.global_step), 1),
            "items_per_s": round(items / pace, 1),
            "memory_gb": round(taken / 1e9, 3),
        }

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.last_log = time.perf_counter()
        if not logs or "train_runtime" in logs:
            return
        values = {k: v for k, v in logs.items() if isinstance(v, int | float)}
        kind: type[LogEvent] = RecallEvent if any(k.startswith("eval_") for k in values) else StepEvent
        self.send(kind(state.global_step, state.max_steps, values))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        late = time.perf_counter() - self.last_log >= EVERY_SECONDS
        self.stopped, late = distributed.any_rank([self.stopped, late], args.device)
        # Before a validation, too: it may be what ends the training.
        control.should_log |= late or self.stopped or control.should_evaluate
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def note(self, text: str) -> None:
        """Report a remark for people, which is also kept with the events."""
        self.send(NoteEvent(text))

    def send(self, event: Event) -> None:
        """Report an event from the first process."""
        if self.report and distributed.is_main():
            self.report(event.to_json())

    @contextlib.contextmanager
    def stop_on_signal(self) -> Iterator[None]:
        """Let the first signal finish the step and save, and a second one stop at once."""

        def stop(*_: Any) -> None:
            if self.stopped and distributed.world_size() > 1:
                return  # a launcher passes the signal on that the terminal has sent already
            if self.stopped:
                raise KeyboardInterrupt
            self.stopped = True
            self.send(InterruptEvent())

        with signal_handlers(stop, *SIGNALS):
            yield
