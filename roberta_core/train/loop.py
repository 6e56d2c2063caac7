"""The pretraining loop.

Everything that happens at update `n` is a function of (configuration, data, `n`, the weights before it): the rows come from
`data.order`, the masks from `train.masking`, dropout's generator is seeded anew for every update. So there is no iterator and
no generator to save, and a run that was killed and resumed ends in the same weights, bit for bit, as one that was not. The one
exception is a run with a time budget (`max_minutes`): its learning rate follows the clock.

On a GPU the host runs ahead of the device. What the host must know of an update (tokens of all ranks, whether to stop) is
copied behind its back and read after the backward pass was enqueued; the guard judges on the device. The host waits for the
device at points of the curve, every `max_skipped` updates to see whether the guard still lets any through, and, with an
optimizer that cannot leave out an update by itself (all but AdamW), once an update.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch

from roberta_core.counter_random import key_of
from roberta_core.data.packed import PackedRows
from roberta_core.device import HostCopy, autocast, seed_device
from roberta_core.errors import BadInput, BadParams, Preempted
from roberta_core.model import RobertaForMaskedLM
from roberta_core.model.isolation import has_varlen, isolate
from roberta_core.progress import Progress, human_count, human_time
from roberta_core.train.batches import Batch, Batches
from roberta_core.train.checkpoint import Checkpoints, step_folder
from roberta_core.train.config import RunConfig, TrainConfig
from roberta_core.train.evaluate import Evaluation, HeldOut, perplexity
from roberta_core.train.gradients import Gradients, shard_model
from roberta_core.train.guard import Guard
from roberta_core.train.history import History
from roberta_core.train.masking import IGNORED
from roberta_core.train.meter import Meter
from roberta_core.train.optimizer import Optimizers
from roberta_core.train.out_of_memory import is_out_of_memory, too_large
from roberta_core.train.ranks import Ranks
from roberta_core.train.saver import Saver
from roberta_core.train.update import Update


class _GivenUp(Exception):
    """An update was given up between two micro-batches; nothing of it has reached the weights."""


class Pretraining:
    """One run: builds its optimizer, resumes from the newest checkpoint, and trains to the end.

    Args:
        model: freshly drawn, or with the weights to go on from; lives on `run.device` afterwards.
        rows: the training split.
        held_out: the validation split with its masks.
        config: what decides the result.
        run: what decides speed.
        checkpoints: where to resume from and save to.
        on_point: gets (update, numbers) at each point of the curve.
        should_stop: asked after each update; true, on any rank, saves and raises `Preempted`.
        ranks: the processes that train together.
        word_table: which tokens begin a word; see `Batches`.

    Raises:
        BadParams: rows longer than the model's positions, or more ranks than sequences in a batch.
    """

    def __init__(
        self,
        model: RobertaForMaskedLM,
        rows: PackedRows,
        held_out: HeldOut,
        config: TrainConfig,
        run: RunConfig,
        checkpoints: Checkpoints,
        on_point: Callable[[int, dict], None] = lambda step, numbers: None,
        should_stop: Callable[[], bool] = lambda: False,
        ranks: Ranks | None = None,
        word_table: np.ndarray | None = None,
    ):
        self.ranks = ranks or Ranks(run.device)
        if self.ranks.world > config.batches.smallest:
            raise BadParams(
                f"{self.ranks.world} ranks are to share a batch of {config.batches.smallest} sequences.",
                "Start fewer processes, or set pretrain.batch_size higher.",
            )
        if rows.max_length > model.config.max_length:
            raise BadParams(
                f"The packed rows have {rows.max_length} tokens, the model has positions for {model.config.max_length}.",
                "Set pack.max_length lower, or take a model with more positions.",
            )
        self.rows, self.held_out, self.config, self.run = rows, held_out, config, run
        self.checkpoints, self.on_point, self.should_stop = checkpoints, on_point, should_stop
        self.step = 0
        self.history = History([], [])
        self.model = model
        latest = checkpoints.latest()
        if latest:
            tensors, state = checkpoints.load(latest)
            model.load_state_dict(RobertaForMaskedLM.from_pretrained(latest).state_dict())
        model.to(run.device).train()
        self.ranks.spread(model.parameters())
        self._varlen = has_varlen(run.device, config.precision, config.recipe.dropout)
        sharded = run.shard == "fsdp" and self.ranks.world > 1
        if sharded:
            shard_model(model, model.roberta.encoder.layer, self.ranks)
        self.gradients = Gradients(model, self.ranks, sharded)
        self.optimizers = Optimizers(model, config.recipe)
        if latest:
            self.optimizers.load(tensors)
            self.step, self.history = state["step"], History(**state["history"])
            if self.ranks.first:
                print(f"pretrain: resumed at update {self.step}", flush=True)
        self.saver = Saver(checkpoints, model, self.optimizers, self.ranks, config.average_last)
        self._start_clock()
        self.guard = Guard(run.device, config.spike_sigmas, self.history.guard)
        # Compiled once for the fixed shape of training; evaluation runs the plain model. On a CPU a compiled model draws
        # torch's own dropout masks, which costs more than compilation gains (docs/decisions.md).
        compiled = run.compile and not (run.device.type == "cpu" and config.recipe.dropout)
        self.batches = Batches(
            rows,
            config.batches,
            config.objective,
            model.config.vocab_size,
            config.seed,
            run.device,
            word_table,
            compiled,
        )
        share = config.objective.most if compiled else config.objective.mean
        flops = model.config.train_flops_per_token(rows.max_length, share)
        self.meter = Meter(run.device, flops, run.peak_flops * self.ranks.world)
        self._forward = torch.compile(model) if compiled else model
        if run.compile and not compiled and self.ranks.first:
            print("pretrain: not compiled, on a CPU with dropout that would be slower", flush=True)

    def train(self) -> Evaluation:
        """Runs the updates that are left. Returns the last evaluation.

        Raises:
            Preempted: `should_stop` said so; a checkpoint was written.
            BadInput: `max_skipped` updates in a row had to be left out.
        """
        self._start_clock()
        steps = 0 if self.config.max_minutes else self.config.max_steps  # how many there will be, if that is known
        progress = Progress("pretrain", steps, "updates", done=self.step)
        loss_sum = torch.tensor(self.history.loss_sum, device=self.run.device)
        while not self._over():
            started = time.perf_counter()
            lr = self.config.recipe.lr_at(self._position(), self.config.max_steps)
            log = (self.step + 1) % self.config.log_every == 0 or self.step + 1 == self.config.max_steps
            try:
                done = self._update_or_tell(lr)
            except _GivenUp:
                self._save_before_update(loss_sum)
            loss_sum += done.loss
            self.step += 1
            self.history.tokens += done.tokens
            self.history.slots += done.slots
            over = self._over()
            if self.run.device.type == "cpu" or self.step % self.config.max_skipped == 0:
                self._stop_if_spoilt()
            point = {}
            if log or over:
                point = self._log(loss_sum, lr, done)
                loss_sum.zero_()
            self.meter.add(time.perf_counter() - started, done.tokens, done.slots)
            if point:
                self.on_point(self.step, point | self.meter.look())
            evaluated = self.step % self.config.eval_every == 0 or over
            if evaluated:
                self._evaluate()
            if self.ranks.first:
                progress.advance(1, self._note())
            self._save(loss_sum, checkpoint=done.due or done.stop or over, point=evaluated)
            if done.stop:
                self._stopped()
        if self.ranks.first:
            progress.finish(self._note())
        self.saver.wait()
        return self._result()

    def _start_clock(self) -> None:
        """The clock that never jumps (`time.monotonic`): a changed date or a leap second is not seen by the schedule."""
        self._began, self._used_before = time.monotonic(), self.history.used_s

    def _position(self) -> float:
        """Where the schedule stands, in updates: those done, or the share of the time that is used, whatever is further."""
        if self.config.max_minutes is None:
            return self.step
        return max(self.step, self.history.used_s / (60 * self.config.max_minutes) * self.config.max_steps)

    def _over(self) -> bool:
        return self._position() >= self.config.max_steps

    def _update_or_tell(self, lr: float) -> Update:
        """`update`, or where the memory does not suffice, the line that says which batch would fit."""
        try:
            return self.update(lr)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # outside the handler, whose traceback would keep the failed update's tensors
        tried = self.ranks.share(self.config.batches.size_at(self.step))
        raise too_large(
            self.model,
            self.optimizers,
            self.run.device,
            self.config.precision,
            self.rows.max_length,
            self.config.objective.most,
            min(self.run.micro_batch or tried.stop, tried.stop - tried.start),
        )

    def update(self, lr: float) -> Update:
        """One update at learning rate `lr`, or none if the guard says so."""
        config, ranks = self.config, self.ranks
        batch = self.batches.at(self.step, ranks, self._position() / config.max_steps)
        used_s = self._used_before + time.monotonic() - self._began
        masked = batch.masked.labels.ne(IGNORED).sum()
        due = ranks.first and self.saver.due(self.run.checkpoint_s, self.run.checkpoint_share)
        told = [batch.tokens, batch.slots, self.should_stop(), due, used_s if ranks.first else 0.0]
        count, copied = masked, None
        if ranks.world > 1:
            total = ranks.total(masked, *told)
            count, copied = total[0].long(), HostCopy(total[1:])
        # dropout's draw belongs to the update and the rank, not to the process
        seed_device(self.run.device, key_of(config.seed, self.step, ranks.rank) >> 1)
        loss, right = self._backward(batch, count)
        self.gradients.finish(loss)
        norm = torch.nn.utils.get_total_norm([each.grad for each in self.model.parameters() if each.grad is not None])
        norm = ranks.whole(norm)
        bad = self.guard.judge(loss, norm)
        self.optimizers.step(lr, bad, norm)
        tokens, slots, stop, due, self.history.used_s = told if copied is None else copied.read()
        return Update(torch.where(bad, 0.0, loss), right, masked, int(tokens), int(slots), bool(stop), bool(due))

    def _backward(self, batch: Batch, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of this rank's part of the batch, in micro-batches: each loss is divided by the whole batch's `count`.

        Returns:
            This rank's part of the mean loss, and how many of its predictions were right.

        Raises:
            _GivenUp: the run, of one rank, was asked to stop; several ranks would not agree between two sums.
        """
        total, right = torch.zeros((), device=self.run.device), torch.zeros((), device=self.run.device)
        slots = batch.masked.positions.shape[0] // batch.rows
        largest = -(-self.config.batches.size_at(self.step) // self.ranks.world)
        parts = self.gradients.micro_batches(batch.rows, self.run.micro_batch, largest)
        for number, (here, counts) in enumerate(parts):
            if number and self.ranks.world == 1 and self.should_stop():
                raise _GivenUp
            self.gradients.next_is_last(number == len(parts) - 1)
            flat = slice(here.start * slots, here.stop * slots)
            positions = batch.masked.positions[flat] - here.start * batch.masked.input_ids.shape[1]
            real = None if batch.real is None else batch.real[here]
            labels, apart = batch.masked.labels[flat], None
            if batch.documents is not None:
                apart = isolate(batch.documents[here], self.model.config.pad_token_id, self.run.device, self._varlen)
            with autocast(self.run.device, self.config.precision):
                loss, hits = self._forward(batch.masked.input_ids[here], real, positions, labels, isolation=apart)
            loss = loss / count if counts else loss * 0
            loss.backward()
            total += loss.detach()
            if counts:
                right += hits
        return total, right

    def _log(self, loss_sum: torch.Tensor, lr: float, done: Update) -> dict:
        """A point of the curve: the mean over the accepted updates since the last one.

        Returns:
            What a tracker shall know of it; empty if every update was left out.
        """
        accepted = int(self.guard.accepted)
        since, self.history.accepted = accepted - self.history.accepted, accepted
        right, masked = self.ranks.sum(done.right, done.masked)
        if not since:
            return {}
        loss = loss_sum.item() / since
        point = {"step": self.step, "loss": loss, "lr": lr, "grad_norm": self.guard.norm.item()}
        self.history.train.append(point)
        shown = point | {"perplexity": perplexity(loss), "skipped": self.skipped, "tokens": self.history.tokens}
        shown |= {"accuracy": right / masked} if masked else {}
        return {f"train/{name}": value for name, value in shown.items() if name != "step"}

    @property
    def skipped(self) -> int:
        """Updates that the guard left out."""
        return int(self.guard.skipped)

    def _stop_if_spoilt(self) -> None:
        in_row = int(self.guard.in_row)
        if in_row >= self.config.max_skipped:
            raise self._diverged(f"the loss or the gradient was no number, or jumped, {in_row} updates in a row")

    def _diverged(self, why: str) -> BadInput:
        self.saver.wait()  # the newest checkpoint may still be on its way to the disk
        kept = self.checkpoints.latest()
        last = f" The checkpoint {kept.name} from before is kept." if kept else ""
        return BadInput(
            f"Training has diverged: up to update {self.step} {why}.{last}",
            "Lower pretrain.peak_lr, or set pretrain.clip_norm to 1.0 and pretrain.precision to fp32.",
        )

    def _evaluate(self) -> None:
        scored = self.held_out.score(self.model, self.run.device, self.config.precision, self.ranks)
        self.gradients.at_rest()
        if not math.isfinite(scored.loss):
            raise self._diverged(f"the held-out loss is {scored.loss}")
        self.history.validation.append({"step": self.step, **asdict(scored)})
        shown = asdict(scored) | {"perplexity": perplexity(scored.loss)}
        self.on_point(self.step, {f"validation/{name}": value for name, value in shown.items()})

    def _note(self) -> str:
        parts = [f"{human_count(self.meter.tokens_per_s())} tokens/s"]
        mfu = self.meter.mfu(self.meter.tokens_per_s())
        if mfu:
            parts.append(f"MFU {mfu:.0%}")
        if self.history.train:
            parts.append(f"loss {self.history.train[-1]['loss']:.3f}")
        if self.history.validation:
            parts.append(f"held-out {self.history.validation[-1]['loss']:.3f}")
        if self.config.max_minutes:
            parts.append(f"{human_time(max(0.0, 60 * self.config.max_minutes - self.history.used_s))} left")
        return " · ".join(parts)

    def _save(self, loss_sum: torch.Tensor, checkpoint: bool, point: bool) -> None:
        """Starts to save what is wanted after this update, if anything. A spoilt state is never saved."""
        every = self.run.milestone_steps
        milestone = bool(every) and self.step % every == 0
        point = point and self.config.average_last > 0
        if not (checkpoint or milestone or point):
            return
        spoilt = bool(int(self.guard.in_row)) or not self._weights_are_finite()
        checkpoint, milestone = checkpoint and not spoilt, milestone and not spoilt
        if not (checkpoint or milestone or point):
            return
        self.history.loss_sum, self.history.guard = loss_sum.item(), self.guard.state()
        state = {"history": asdict(self.history)} if checkpoint else None
        self.saver.save(self.step, state, milestone, point)

    def _weights_are_finite(self) -> bool:
        norm = torch.nn.utils.get_total_norm([each.detach() for each in self.model.parameters()])
        return math.isfinite(self.ranks.whole(norm).item())

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's weights as they are saved, whole even where ranks share them; all ranks call it."""
        return dict(self.model.saved_weights(self.ranks.whole))

    def _save_before_update(self, loss_sum: torch.Tensor) -> None:
        """Saves what was there before an update that was given up. Raises `Preempted`."""
        self.saver.wait()
        latest = self.checkpoints.latest()
        if latest is None or latest.name != step_folder(self.step):
            self._save(loss_sum, checkpoint=True, point=False)
        self._stopped()

    def _stopped(self) -> None:
        """Waits for the checkpoint of a run that was asked to stop. Raises `Preempted`."""
        if self.saver.wait() is None:
            raise Preempted(
                f"Stopped after update {self.step}; a checkpoint is kept.", "Run again to go on from there."
            )
        raise Preempted(
            f"Stopped after update {self.step}, whose checkpoint could not be written.",
            "Make room; the next run goes on from the one before.",
        )

    def _result(self) -> Evaluation:
        """The last evaluation; with `average_last`, of the mean weights, which the model holds from then on."""
        if not self.history.train:
            raise self._diverged("every update was left out")
        last = self.history.validation[-1]
        if not self.config.average_last:
            return Evaluation(last["loss"], last["accuracy"])
        self.ranks.sum(0)  # rank 0 has written the last point
        steps = [point["step"] for point in self.history.validation[-self.config.average_last :]]
        own = self.model.state_dict()
        for name, tensor in self.checkpoints.average(steps).items():
            self.ranks.fill(own[name], tensor)
        scored = self.held_out.score(self.model, self.run.device, self.config.precision, self.ranks)
        self.gradients.at_rest()
        self.on_point(self.step, {"averaged/loss": scored.loss, "averaged/accuracy": scored.accuracy})
        return scored
