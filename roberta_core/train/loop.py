"""The pretraining loop.

Everything that happens at update `n` is a function of (configuration, data, `n`, the weights before it): the rows come from
`data.order`, the masks from `train.masking`, dropout's generator is seeded anew for every update. So there is no iterator and
no generator to save, and a run that was killed and resumed ends in the same weights, bit for bit, as one that was not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from roberta_core.atomic import atomic_file
from roberta_core.counter_random import key_of
from roberta_core.data.order import rows_at
from roberta_core.data.packed import PackedRows
from roberta_core.data.packing import PAD
from roberta_core.device import autocast
from roberta_core.errors import BadInput, BadParams, Preempted
from roberta_core.model import RobertaForMaskedLM
from roberta_core.progress import Progress, human_count
from roberta_core.train.checkpoint import Checkpoints
from roberta_core.train.evaluate import Evaluation, HeldOut
from roberta_core.train.masking import IGNORED, mask_batch
from roberta_core.train.optimizer import Optimizers
from roberta_core.train.ranks import Ranks
from roberta_core.train.recipes import Recipe
from roberta_core.train.saver import Saver


@dataclass(frozen=True)
class TrainConfig:
    """What decides the result: part of the fingerprint."""

    max_steps: int
    batch_size: int
    mask_prob: float
    recipe: Recipe
    precision: str
    seed: int
    eval_every: int
    eval_rows: int
    log_every: int
    average_last: int = 0


@dataclass(frozen=True)
class RunConfig:
    """What decides speed and safety only."""

    device: torch.device
    micro_batch: int = 0
    compile: bool = False
    checkpoint_s: float = 120.0
    milestone_steps: int = 0


@dataclass
class History:
    """What the run has shown so far: saved in checkpoints, so that a resumed run draws the same curves."""

    train: list[dict]
    validation: list[dict]
    tokens: int = 0
    loss_sum: float = 0.0  # of the updates since the last point of the curve


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
    ):
        self.ranks = ranks or Ranks(run.device)
        if self.ranks.world > config.batch_size:
            raise BadParams(
                f"{self.ranks.world} ranks are to share a batch of {config.batch_size} sequences.",
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
        self.step_s = 0.0  # seconds spent in updates of this process, evaluation and saving left out
        self.step_tokens = 0
        self.model = model
        latest = checkpoints.latest()
        if latest:
            tensors, state = checkpoints.load(latest)
            model.load_state_dict(RobertaForMaskedLM.from_pretrained(latest).state_dict())
        model.to(run.device).train()
        self.optimizers = Optimizers(model, config.recipe)
        if latest:
            self.optimizers.load(tensors)
            self.step, self.history = state["step"], History(**state["history"])
            if self.ranks.first:
                print(f"pretrain: resumed at update {self.step}", flush=True)
        self.saver = Saver(checkpoints, model, self.optimizers, self.ranks, config.average_last)
        self._saved_at = time.monotonic()
        # Compiled once for the fixed shape of training; evaluation runs the plain model.
        self._forward = torch.compile(model) if run.compile else model

    def train(self) -> Evaluation:
        """Runs the updates that are left. Returns the last evaluation.

        Raises:
            Preempted: `should_stop` said so; a checkpoint was written.
            BadInput: the loss is not a number.
        """
        progress = Progress("pretrain", self.config.max_steps, "updates", done=self.step)
        loss_sum = torch.tensor(self.history.loss_sum, device=self.run.device)
        while self.step < self.config.max_steps:
            started = time.perf_counter()
            lr = self.config.recipe.lr_at(self.step, self.config.max_steps)
            loss, norm, tokens, stop, due = self._update(lr)
            loss_sum += loss
            self.step += 1
            self.history.tokens += tokens
            self.step_tokens += tokens
            if self.step % self.config.log_every == 0 or self.step == self.config.max_steps:
                self._log(loss_sum, lr, norm)
                loss_sum.zero_()
            self.step_s += time.perf_counter() - started
            last = self.step == self.config.max_steps
            point = self.step % self.config.eval_every == 0 or last
            if point:
                self._evaluate()
            if self.ranks.first:
                progress.advance(1, self._note())
            self._save(loss_sum, checkpoint=due or stop or last, point=point)
            if stop:
                self._stopped()
        if self.ranks.first:
            progress.finish(self._note())
        self.saver.wait()
        return self._result()

    def _update(self, lr: float) -> tuple[torch.Tensor, torch.Tensor | None, int, bool, bool]:
        """One update.

        Returns:
            The mean loss of the whole batch (nats, on the device), the gradient norm if clipping is on, the batch's real
            tokens, whether a rank was asked to stop, and whether rank 0 finds a checkpoint due.
        """
        config, device = self.config, self.run.device
        numbers, epochs = rows_at(self.step * config.batch_size, config.batch_size, len(self.rows), config.seed)
        share = self.ranks.share(config.batch_size)
        numbers, epochs = numbers[share], epochs[share]
        ids = torch.from_numpy(self.rows.rows(numbers))
        real = ids.ne(PAD)
        own_tokens = int(real.sum())
        padded = own_tokens < ids.numel()
        ids = ids.to(device, non_blocking=True)
        real = real.to(device, non_blocking=True) if padded else None
        masked = mask_batch(
            ids,
            torch.from_numpy(numbers).to(device),
            torch.from_numpy(epochs).to(device),
            config.seed,
            config.mask_prob,
            self.model.config.vocab_size,
        )
        own_count = masked.labels.ne(IGNORED).sum()
        due = self.ranks.first and time.monotonic() - self._saved_at >= self.run.checkpoint_s
        if self.ranks.world > 1:
            count, tokens, stop, due = self.ranks.sum(own_count, own_tokens, self.should_stop(), due)
        else:  # nothing to wait for: the count stays on the device
            count, tokens, stop = own_count, own_tokens, self.should_stop()
        # dropout's draw belongs to the update and the rank, not to the process
        torch.manual_seed(key_of(config.seed, self.step, self.ranks.rank) >> 1)
        total = torch.zeros((), device=device)
        size = self.run.micro_batch or len(ids)
        slots = masked.positions.shape[0] // len(ids)
        for start in range(0, len(ids), size):
            here = slice(start, start + size)
            flat = slice(start * slots, min(start + size, len(ids)) * slots)
            positions = masked.positions[flat] - start * ids.shape[1]
            with autocast(device, config.precision):
                logits = self._forward(masked.input_ids[here], None if real is None else real[here], positions)
            loss = F.cross_entropy(logits.float(), masked.labels[flat], ignore_index=IGNORED, reduction="sum") / count
            loss.backward()
            total += loss.detach()
        self.ranks.sum_gradients(self.model.parameters(), total)
        norm = None
        if config.recipe.clip_norm:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.recipe.clip_norm)
        self.optimizers.step(lr)
        return total, norm, int(tokens), bool(stop), bool(due)

    def _log(self, loss_sum: torch.Tensor, lr: float, norm: torch.Tensor | None) -> None:
        since = (self.step - 1) % self.config.log_every + 1
        loss = self._finite(loss_sum) / since
        point = {"step": self.step, "loss": loss, "lr": lr} | ({} if norm is None else {"grad_norm": norm.item()})
        self.history.train.append(point)
        self.on_point(self.step, {"train/" + key: value for key, value in point.items() if key != "step"})

    def _finite(self, loss_sum: torch.Tensor) -> float:
        loss = loss_sum.item()
        if not math.isfinite(loss):
            raise BadInput(
                f"The loss is {loss} at update {self.step}: training has diverged.",
                "Lower pretrain.peak_lr, or set pretrain.clip_norm to 1.0 and pretrain.precision to fp32.",
            )
        return loss

    def _evaluate(self) -> None:
        scored = self.held_out.score(self.model, self.run.device, self.config.precision, self.ranks)
        self.history.validation.append({"step": self.step, **asdict(scored)})
        self.on_point(self.step, {"validation/loss": scored.loss, "validation/accuracy": scored.accuracy})

    def _note(self) -> str:
        parts = [f"{human_count(self.tokens_per_s())} tokens/s"]
        if self.history.train:
            parts.append(f"loss {self.history.train[-1]['loss']:.3f}")
        if self.history.validation:
            parts.append(f"held-out {self.history.validation[-1]['loss']:.3f}")
        return " · ".join(parts)

    def tokens_per_s(self) -> float:
        """Real tokens (no padding) a second over the updates of this process; evaluation and saving do not count."""
        return self.step_tokens / self.step_s if self.step_s else 0.0

    def _save(self, loss_sum: torch.Tensor, checkpoint: bool, point: bool) -> None:
        """Starts to save what is wanted after this update, if anything."""
        every = self.run.milestone_steps
        milestone = bool(every) and self.step % every == 0
        point = point and self.config.average_last > 0
        if not (checkpoint or milestone or point):
            return
        self.history.loss_sum = self._finite(loss_sum)  # a spoilt state is never saved
        state = {"history": asdict(self.history)} if checkpoint else None
        self.saver.save(self.step, state, milestone, point)
        if checkpoint:
            self._saved_at = time.monotonic()

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's weights as they are saved, whole even where ranks share them; all ranks call it."""
        return dict(self.model.saved_weights(self.ranks.whole))

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
        last = self.history.validation[-1]
        if not self.config.average_last:
            return Evaluation(last["loss"], last["accuracy"])
        self.ranks.sum(0)  # rank 0 has written the last point
        steps = [point["step"] for point in self.history.validation[-self.config.average_last :]]
        own = self.model.state_dict()
        for name, tensor in self.checkpoints.average(steps).items():
            self.ranks.fill(own[name], tensor)
        scored = self.held_out.score(self.model, self.run.device, self.config.precision, self.ranks)
        self.on_point(self.step, {"averaged/loss": scored.loss, "averaged/accuracy": scored.accuracy})
        return scored


def write_curve(points: list[dict], file: Path) -> None:
    """Writes points of a curve as CSV, for `dvc plots`."""
    with atomic_file(file) as handle:
        columns = list(points[0])
        handle.write(",".join(columns) + "\n")
        for point in points:
            handle.write(
                ",".join(
                    f"{point[name]:.9g}" if isinstance(point[name], float) else str(point[name]) for name in columns
                )
                + "\n"
            )
