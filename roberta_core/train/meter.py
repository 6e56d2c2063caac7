"""How fast a run goes: true tokens a second, the share of padding, MFU, memory. None of it enters results or checkpoints.

MFU (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) is tokens a second, times the FLOPs of a token by the formula of
`RobertaConfig.train_flops_per_token`, over the peak of the devices. Tokens are true tokens: padding is work without merit.
"""

from dataclasses import dataclass

import torch

from roberta_core.hardware import used_memory


@dataclass
class Meter:
    """Counts updates of this process; evaluation and saving are left out by the caller.

    Attributes:
        device: whose memory is read.
        flops_per_token: forward and backward; where the share of masked tokens changes, the mean over the run.
        peak: FLOP/s of all ranks' devices together; 0: not known, and no MFU is told.
    """

    device: torch.device
    flops_per_token: float
    peak: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    slots: int = 0
    _seen: tuple[float, int, int] = (0.0, 0, 0)

    def add(self, seconds: float, tokens: int, slots: int) -> None:
        """Counts an update: its seconds, its real tokens and its tokens with padding, over all ranks."""
        self.seconds += seconds
        self.tokens += tokens
        self.slots += slots

    def tokens_per_s(self) -> float:
        """Real tokens a second since this process began."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def mfu(self, tokens_per_s: float) -> float | None:
        """Share of the peak that a speed makes; None where the peak is not known."""
        return tokens_per_s * self.flops_per_token / self.peak if self.peak else None

    def look(self) -> dict[str, float]:
        """Since the last look: true tokens a second, share of padding, MFU where it is known, and the memory as it is now."""
        seconds, tokens, slots = (
            now - then for now, then in zip((self.seconds, self.tokens, self.slots), self._seen, strict=True)
        )
        self._seen = self.seconds, self.tokens, self.slots
        if not seconds:
            return {}
        speed = tokens / seconds
        mfu = self.mfu(speed)
        return {
            "speed/tokens_per_s": speed,
            "speed/padded_share": 1 - tokens / slots,
            "speed/memory_mb": used_memory(self.device) / 2**20,
        } | ({} if mfu is None else {"speed/mfu": mfu})
