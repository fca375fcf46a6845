"""All that a server holds: models, catalogues, votes; loaded once, and the indexes again on demand."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from n2kit.errors import BadInput, N2kitError, Unavailable, counted
from n2kit.index import StoredIndex, load_index
from n2kit.serve.batching import Batcher, Closed
from n2kit.serve.catalogue import Catalogue
from n2kit.serve.changes import Change, refuse_changes, why_read_only, write_changes
from n2kit.serve.engine import Engine
from n2kit.serve.metrics import Metrics
from n2kit.serve.options import ServeOptions
from n2kit.serve.problems import Problem
from n2kit.serve.votes import Votes

LOG = logging.getLogger("n2kit")
MOST_CHANGES = 10_000  # items that one writing of an index takes


class State:
    """The models and catalogues of a server.

    Args:
        notify: called with lines for people while loading.

    Raises:
        BadInput: nothing to serve; a bundle that made none of the indexes; what loading raises.
    """

    def __init__(self, options: ServeOptions, notify: Callable[[str], None] = LOG.info) -> None:
        if not options.indexes and not options.bundles:
            raise BadInput("nothing to serve", "give --index, --bundle, or both")
        self.options, self.metrics, self.stopping = options, Metrics(), False
        self.votes = None if options.feedback is None else Votes(options.feedback)
        self._reloading = threading.Lock()
        self._writing = threading.Lock()  # of folders, and of the catalogues that are served
        self._changes: dict[str, Batcher[Change, None]] = {}
        stored = {name: load_index(folder) for name, folder in options.indexes.items()}
        self.engines: dict[str, Engine] = {}  # by fingerprint
        try:
            for folder in options.bundles:
                notify(f"loading {folder}")
                engine = Engine(
                    folder, device=options.device, most=options.batch_tokens, wait=options.batch_wait,
                    observe=self.metrics.batch,
                )  # fmt: skip
                self.engines[engine.fingerprint] = engine
            self.catalogues = {name: self._catalogue(name, index) for name, index in stored.items()}
            self._check()
        except BaseException:
            self.close()
            raise
        self.read_only = {name: why_read_only(folder, options) for name, folder in options.indexes.items()}
        for name, reason in self.read_only.items():
            if reason is None:
                self._changes[name] = Batcher(partial(self._write, name), lambda _: 1, most=MOST_CHANGES, wait=0)
            else:
                notify(f"{name} is read-only: {reason}")
        self.metrics.watch("n2kit_waiting", "Requests that wait for a model.", self._waiting)
        for catalogue in self.catalogues.values():
            missing = sum(not catalogue.knows(i) for i in catalogue.stored.ids)
            notify(
                f"{catalogue.name}: {counted(len(catalogue.stored.ids), 'item')} of model {catalogue.stored.fingerprint}"
                + f", {missing:,} of them without title or picture" * bool(missing)
            )

    def _catalogue(self, name: str, stored: StoredIndex) -> Catalogue:
        return Catalogue(name, stored, self.options.items, self.options.images, self.engines.get(stored.fingerprint))

    def _check(self) -> None:
        made = {c.stored.fingerprint for c in self.catalogues.values()}
        for engine in self.engines.values():
            if made and engine.fingerprint not in made:
                by = ", ".join(f"{c.name} by {c.stored.fingerprint}" for c in self.catalogues.values())
                raise BadInput(
                    f"{engine.folder} is model {engine.fingerprint}, and made none of the indexes ({by})",
                    "give the bundle that made the index, or embed and index with this one",
                )

    def catalogue(self, name: str | None) -> Catalogue:
        """Find a catalogue by its name; the first one without.

        Raises:
            Problem: there is none.
        """
        if not self.catalogues:
            raise Problem(501, "no index is served", "n2kit serve --index FOLDER")
        if name is None:
            return next(iter(self.catalogues.values()))
        if name not in self.catalogues:
            raise Problem(404, f"no index {name!r}", f"there are: {', '.join(self.catalogues)}", "index")
        return self.catalogues[name]

    def engine(self, model: str | None) -> Engine:
        """Find a model by its name or fingerprint; without one, the only model.

        Raises:
            Problem: there is none.
        """
        every = list(self.engines.values())
        if not every:
            raise Problem(501, "no model is served", "n2kit serve --bundle BUNDLE")
        found = [engine for engine in every if model in (None, engine.name, engine.fingerprint)]
        if len(found) != 1:
            what = f"no model {model!r}" if model and not found else "several models are served"
            raise Problem(
                404, what, f"model is one of: {', '.join(f'{e.name} ({e.fingerprint})' for e in every)}", "model"
            )
        return found[0]

    def engine_of(self, catalogue: Catalogue) -> Engine:
        """Return the model of a catalogue.

        Raises:
            Problem: it is not served.
        """
        if catalogue.engine is None:
            hint = "ask for items of the catalogue by id, or n2kit serve --bundle"
            raise Problem(501, f"the model of {catalogue.name} is not served", hint)
        return catalogue.engine

    def reload(self) -> dict[str, int]:
        """Load all indexes again, and put them in place of the old ones at once; those answer until then, and if anything fails.

        Raises:
            BadInput: an index is damaged, or of a model that is not served. Problem: a reload is under way.
        """
        if not self._reloading.acquire(blocking=False):
            raise Problem(409, "a reload is under way")
        try:
            new = {}
            with self._writing:
                for name, folder in self.options.indexes.items():
                    stored, old = load_index(folder), self.catalogues[name]
                    if old.engine is not None and stored.fingerprint != old.engine.fingerprint:
                        raise BadInput(
                            f"{name} is now of model {stored.fingerprint}, and {old.engine.fingerprint} is served"
                        )
                    new[name] = old.with_index(stored)
                self.catalogues = new
        except (N2kitError, OSError) as problem:
            self.metrics.reloads.labels("failed").inc()
            LOG.warning("not reloaded, the indexes before go on: %s", problem)
            raise problem if isinstance(problem, N2kitError) else Unavailable(str(problem)) from None
        else:
            self.metrics.reloads.labels("done").inc()
            return {name: len(catalogue) for name, catalogue in new.items()}
        finally:
            self._reloading.release()

    async def change(self, name: str, changes: Sequence[Change]) -> Catalogue:
        """Put items into an index, and take others out: in its folder when this returns; the catalogue as it is then.

        Raises:
            Problem: the index is read-only; its folder is in use; the server is stopping. BadInput: no item would be left.
        """
        refuse_changes(name, self.read_only[name])
        try:
            await asyncio.wrap_future(self._changes[name].submit(list(changes)))
        except Closed:
            raise Problem(503, "the server is stopping", "ask another one") from None
        return self.catalogues[name]

    def _write(self, name: str, changes: list[Change]) -> list[None]:
        with self._writing:
            old = self.catalogues[name]
            stored = write_changes(self.options.indexes[name], old.stored, changes)
            self.catalogues = self.catalogues | {name: old.with_index(stored)}
        return [None] * len(changes)

    def _waiting(self) -> float:
        return sum(engine.batcher.waiting for engine in self.engines.values())

    def close(self) -> None:
        """Finish what the models have taken, and what is to be written."""
        for engine in self.engines.values():
            engine.close()
        for changes in self._changes.values():
            changes.close()
