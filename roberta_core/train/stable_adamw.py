"""StableAdamW (Wortsman et al. 2023, arXiv 2304.13013, section 3.5): AdamW whose update is clipped per tensor, as in AdaFactor.

Where a gradient is far larger than the second moment expects (after a change in the data, or early on), AdamW's update grows
past the learning rate; here the rate is divided by RMS = sqrt(mean(g² / max(v, eps²))) wherever that is above 1. It makes
gradient clipping unnecessary. Written here because torch has none, and a package for these lines would be a dependency of
every GPU node. Price: one reduction more a tensor than AdamW, and no fused kernel.
"""

from collections.abc import Iterable

import torch


class StableAdamW(torch.optim.Optimizer):
    """The arguments are AdamW's; weight decay is decoupled and uses the clipped rate, as in the paper's algorithm 2."""

    def __init__(
        self,
        params: Iterable,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update."""
        for group in self.param_groups:
            (beta1, beta2), eps, lr = group["betas"], group["eps"], group["lr"]
            parameters = [each for each in group["params"] if each.grad is not None]
            for each in parameters:
                if not self.state[each]:
                    self.state[each] = {
                        "step": torch.zeros(()),
                        "exp_avg": torch.zeros_like(each),
                        "exp_avg_sq": torch.zeros_like(each),
                    }
            if not parameters:
                continue
            gradients = [each.grad for each in parameters]
            steps, first, second = (
                [self.state[each][name] for each in parameters] for name in ("step", "exp_avg", "exp_avg_sq")
            )
            torch._foreach_add_(steps, 1)
            count = steps[0].item()  # on the host
            # debiasing inside the averages: a beta that starts at 0 and grows to its value
            rate1 = (1 - beta1) / (1 - beta1**count)
            rate2 = (1 - beta2) / (1 - beta2**count)
            torch._foreach_lerp_(first, gradients, rate1)
            torch._foreach_mul_(second, 1 - rate2)
            torch._foreach_addcmul_(second, gradients, gradients, rate2)

            floor = torch._foreach_clamp_min(second, eps**2)
            ratio = torch._foreach_div(torch._foreach_mul(gradients, gradients), floor)
            rates = [lr / each.mean().sqrt().clamp(min=1.0) for each in ratio]

            torch._foreach_mul_(parameters, [1 - group["weight_decay"] * each for each in rates])
            update = torch._foreach_div(first, torch._foreach_add(torch._foreach_sqrt(second), eps))
            torch._foreach_mul_(update, rates)
            torch._foreach_sub_(parameters, update)
