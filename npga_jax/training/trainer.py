"""The training loop: steps, density control, checkpoints, growth of capacities."""

import sys
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from npga_jax.avatar import Method
from npga_jax.core import (
    CHECKPOINTS,
    Batch,
    InputError,
    Interrupts,
    checkpoint,
    memory,
)
from npga_jax.data import (
    Capture,
    Split,
    expression_codes,
    frame_weights,
    plan_step,
    prefetch,
)
from npga_jax.rasterizer import padded_capacity
from npga_jax.training import parallel
from npga_jax.training.refinement import Refiner, event_at
from npga_jax.training.rescue import dump_batch
from npga_jax.training.settings import TrainConfig
from npga_jax.training.stages import (
    Stage,
    make_isects_fn,
    make_run_step,
    stage_at,
)
from npga_jax.training.start import neighbour_graph
from npga_jax.training.state import TrainState, average_in, averaged_after
from npga_jax.training.step import Metrics
from npga_jax.training.watching import Clock, Watch

ISECTS_SLACK = 1.1
"""Room that a changed cloud must leave; else a larger capacity is compiled for."""
LESS_MEMORY = (
    "Start a new run with a lower --capture.width, --gaussians.capacity, "
    "--views-per-step or --detail.hidden; what was saved is intact."
)
_MOST_UNCHECKED = 100
"""Steps after which is looked at what they reported, logged or not."""


class NonFiniteError(InputError):
    """Training has diverged, or its data are damaged."""


class Trainer:
    """Runs steps on a state until told to stop; all its files go to one folder."""

    def __init__(
        self,
        cfg: TrainConfig,
        method: Method,
        capture: Capture,
        split: Split,
        folder: Path,
        state: TrainState,
        *,
        seconds_before: float = 0.0,
        max_isects: int = 0,
        preview_fn: Callable[[TrainState], np.ndarray] | None = None,
        test_fn: Callable[[TrainState], dict[str, float]] | None = None,
    ):
        """Prepares a run.

        Args:
          method: what the run is made of.
          state: where to start, on any device.
          seconds_before: training time of the runs that this one continues.
          max_isects: capacity that those runs came to; 0: unknown.
          preview_fn: makes a picture [H, W, 3] uint8 of a state.
          test_fn: measures a state; what it takes is no training time.
        """
        self.cfg, self.method = cfg, method
        self.capture, self.split, self.folder = capture, split, folder
        self.mesh = parallel.make_mesh(cfg.num_devices, cfg.views_per_step)
        self.state = jax.device_put(state, parallel.replicated(self.mesh))
        self.clock = Clock(seconds_before)
        self.watch = Watch(
            cfg,
            folder,
            int(state.step),
            self.clock,
            preview_fn=preview_fn,
            test_fn=test_fn,
        )
        self._saved_step = int(state.step)  # Nothing is lost with it.
        self._has_warned = False
        self._unchecked: list[tuple[int, Metrics]] = []
        self._averaged_after = averaged_after(cfg)
        self._average_fn = jax.jit(average_in, donate_argnums=0)
        self._weights = None
        if cfg.balance > 0:
            codes = expression_codes(capture, split.train)
            self._weights = frame_weights(codes, cfg.balance)
        self.stage = self._stage_at(int(state.step))
        self._isects_fn = self._make_isects_fn()
        known = max(cfg.max_isects, max_isects)
        self._set_room(known or padded_capacity(self._isects_fn(self.state)))

    def _make_isects_fn(self) -> Callable[[TrainState], int]:
        return make_isects_fn(
            self.cfg,
            self.method,
            self.capture,
            self.split.train,
            downscale=self.stage.downscale,
        )

    def _stage_at(self, step: int) -> Stage:
        return stage_at(self.cfg, self.method, step, has_mattes=self.capture.has_mattes)

    def _set_room(self, max_isects: int) -> None:
        """The next step is compiled for this capacity, and for the stage as it is."""
        self.max_isects = max_isects
        self.refiner: Refiner | None = None
        self.step_fn: Callable | None = None

    def _compile_step(self, batch: Batch) -> Callable:
        """The compiled step.

        Raises:
          InputError: the machine has too little memory for it; the state is saved.
        """
        step_fn = make_run_step(
            self.cfg,
            self.method,
            self.capture,
            self.stage,
            max_isects=self.max_isects,
            axis_name=parallel.AXIS_NAME,
        )
        jitted = parallel.data_parallel(step_fn, self.mesh)
        compiled = jitted.lower(self.state, batch).compile()
        try:
            memory.check_program(compiled, "a training step", LESS_MEMORY)
        except InputError:
            self.save()
            raise
        return compiled

    def _enter_stage(self, step: int) -> None:
        """Compiles anew where images become larger or a loss joins in."""
        stage = self._stage_at(step)
        if stage == self.stage:
            return
        is_resized = stage.downscale != self.stage.downscale
        self.stage = stage
        max_isects = self.max_isects
        if is_resized:
            self._isects_fn = self._make_isects_fn()
            max_isects = max(max_isects, padded_capacity(self._isects_fn(self.state)))
        self._set_room(max_isects)

    def _change_cloud(self, event: int) -> None:
        """Density control; `event` counts from 0.

        What a view wants is known only when it has been rendered. Where it does not
        fit, all views are looked at again with more room: nothing is decided on images
        that lack Gaussians.
        """
        while True:
            if self.refiner is None:
                self.refiner = Refiner(
                    self.cfg, self.method, self.capture, self.stage, self.max_isects
                )
            survey = self.refiner.look(self.state, self.split.train, event)
            if not survey.num_dropped:
                break
            self._grow(survey.num_isects, survey.num_dropped, "density control")
        state, report = self.refiner.change(self.state, survey.stats, event)
        graph = neighbour_graph(
            self.cfg, self.method, state.params.gaussians, state.alive
        )
        self.state = jax.device_put(
            state._replace(graph=graph), parallel.replicated(self.mesh)
        )
        print(
            f"\nstep {int(state.step):,}: {report.added} Gaussians added, "
            f"{report.dropped} dropped, {int(state.alive.sum())} of "
            f"{state.alive.shape[0]} slots in use"
            + (f", {report.wanted} more found none" if report.wanted else ""),
            file=sys.stderr,
        )
        wanted = self._isects_fn(self.state)
        if wanted * ISECTS_SLACK > self.max_isects:
            self._set_room(padded_capacity(wanted))

    def _grow(self, wanted: int, dropped: int, where: str) -> None:
        """More room for intersections, said aloud."""
        grown = padded_capacity(wanted)
        print(
            f"\n{where}: {dropped} intersections did not fit in {self.max_isects} a "
            f"view; going on with {grown} (set --max-isects to avoid the "
            "recompilation)",
            file=sys.stderr,
        )
        self._set_room(grown)

    def save(self) -> None:
        """Writes a checkpoint of the state, unless there is one.

        Raises:
          NonFiniteError: if the state is not finite; it is not saved then.
        """
        if int(self.state.step) == self._saved_step:
            return
        bad = checkpoint.first_non_finite(self.state)
        if bad is not None:
            raise NonFiniteError(
                f"{bad} is not finite at step {int(self.state.step)}: training has "
                "diverged. That was not saved; earlier checkpoints are intact. Lower "
                "the step sizes (--optim)."
            )
        checkpoint.save_state(
            self.folder / CHECKPOINTS,
            self.state,
            {"seconds": self.clock.seconds, "max_isects": self.max_isects},
        )
        self._saved_step = int(self.state.step)

    def _batches(self, start: int) -> Generator[tuple[int, Batch], None, None]:
        """Batches from step `start` on, on the devices.

        When one cannot be read, the state is saved.
        """
        batches = prefetch(
            self.capture,
            self.split.train,
            seed=self.cfg.seed,
            views_per_step=self.cfg.views_per_step,
            start_step=start,
            num_steps=max(self.cfg.steps - start, 0),
            weights=self._weights,
            place=partial(parallel.shard_batch, mesh=self.mesh),
        )
        try:
            yield from batches
        except InputError:
            self.save()
            raise
        finally:
            batches.close()

    def run(self) -> TrainState:
        """Trains to the last step; Ctrl-C saves after the step in hand and passes on.

        Raises:
          InputError: if a step's gradient is not finite, a batch cannot be read, or
            the disk is full; in all cases a checkpoint is left to go on from.
          KeyboardInterrupt: when stopped by Ctrl-C; Stopped by SIGTERM.
        """
        start = int(self.state.step)
        batches = self._batches(start)
        self.clock.start()
        try:
            with Interrupts() as interrupts:
                if self.watch.is_test_due(start):
                    self._test(start)
                for index, batch in batches:
                    self._enter_stage(index)
                    if self.step_fn is None:
                        self.step_fn = self._compile_step(batch)
                    self.state, metrics = self.step_fn(self.state, batch)
                    is_stopped = interrupts.requested
                    self._after_step(
                        index + 1,
                        metrics,
                        is_first=index == start,
                        is_stopped=is_stopped,
                    )
                    if is_stopped:
                        break
        finally:
            batches.close()
            self.watch.close()
        if interrupts.requested:
            print(
                f"\nstopped at step {self._saved_step}, saved; go on with "
                f"experiments/train.py --resume --output {self.folder}",
                file=sys.stderr,
            )
        interrupts.raise_if_requested()
        return self.state

    def _after_step(
        self, done: int, metrics: Metrics, *, is_first: bool, is_stopped: bool
    ) -> None:
        """All that may follow a step.

        Args:
          done: steps taken.
          is_first: of this process: it was compiled for.
          is_stopped: no step follows.
        """
        cfg = self.cfg
        self._unchecked.append((done - 1, metrics))
        if done > self._averaged_after:
            count = np.float32(done - self._averaged_after)
            self.state = self._average_fn(self.state, count)
        if is_first:
            jax.block_until_ready(metrics)
            self.clock.tick()
            self.watch.skip(done)
        is_last = is_stopped or done == cfg.steps
        is_saved = is_last or done % cfg.save_every == 0
        is_logged = is_last or is_first or done % cfg.log_every == 0
        is_tested = not is_stopped and self.watch.is_test_due(done)
        event = event_at(cfg, self.method, done)
        is_seen = is_logged or is_saved or is_tested or event is not None
        if is_seen or len(self._unchecked) == _MOST_UNCHECKED:
            # A bad step stops the run here, before anything else touches its state.
            self._check()
        self.clock.tick()
        if is_logged:
            values = {k: v.item() for k, v in metrics.items()}
            self.watch.report(done, values, self.max_isects)
        if event is not None:
            self._change_cloud(event)
        if done == cfg.steps > self._averaged_after:
            self.state = self.state._replace(params=self.state.average)
        if is_saved:
            self.save()
        self.watch.show(self.state, done)
        if is_tested:
            self._test(done)

    def _test(self, step: int) -> None:
        """Tests the state; where that fails, it is saved first."""
        jax.block_until_ready(self.state)
        self.clock.tick()
        try:
            self.watch.test(self.state, step)
        except InputError:
            self.save()
            raise

    def _check(self) -> None:
        """Looks at what steps returned: stops at a bad one, grows what is too small."""
        names = ("is_finite", "loss", "num_dropped", "num_isects", "num_invalid")
        outcomes = jax.device_get(
            [(i, {name: m[name] for name in names}) for i, m in self._unchecked]
        )
        self._unchecked.clear()
        for index, outcome in outcomes:
            if not outcome["is_finite"]:
                self._stop_at(index, float(outcome["loss"]))
        invalid = max(int(m["num_invalid"]) for _, m in outcomes)
        if invalid and not self._has_warned:
            self._has_warned = True
            print(
                f"\nup to {invalid} Gaussians were not finite, or too large to draw, "
                "and were left out (num_invalid in metrics.jsonl); said once",
                file=sys.stderr,
            )
        dropped = sum(int(m["num_dropped"]) for _, m in outcomes)
        if dropped:
            wanted = max(int(m["num_isects"]) for _, m in outcomes)
            self._grow(wanted, dropped, f"{len(outcomes)} step(s)")

    def _stop_at(self, step: int, loss: float) -> None:
        self.state = self.state._replace(halted=np.zeros((), bool))
        self.save()  # First: what follows reads and writes, and may fail.
        plan = plan_step(
            step,
            seed=self.cfg.seed,
            train=self.split.train,
            views_per_step=self.cfg.views_per_step,
            weights=self._weights,
        )
        path = self.folder / "crash" / f"batch_{step}.npz"
        raise NonFiniteError(
            f"the gradient of step {step} is not finite (loss {loss}): training has "
            f"diverged, or its data are damaged. What was trained before is saved. "
            f"Lower the step sizes (--optim). {dump_batch(path, self.capture, *plan)}"
        )
