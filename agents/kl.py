"""The coefficient of the KL penalty: fixed, or adapted so that the KL settles at a target."""


class KLController:
    """Coefficient beta of the per-token penalty ``-beta * KL`` that keeps the policy near the reference.

    With ``target=None`` it stays at ``coef``. With a target it follows Ziegler et al. 2019 ("Fine-Tuning Language Models
    from Human Preferences", section 2.2): ``beta *= 1 + clip(KL / target - 1, -0.2, 0.2) * n_episodes / horizon``.

    Args:
        coef: first value of beta; 0.05 is OpenAI's and TRL's usual order of magnitude.
        target: nats per sequence (not per token), 6 in Ziegler et al. 2019; None keeps beta fixed.
        horizon: episodes over which beta can change by a factor of about e^0.2; 10,000 in the paper's code.

    Raises:
        ValueError: for a negative coefficient, or a target or horizon that is not positive.
    """

    def __init__(self, coef: float = 0.05, target: float | None = None, horizon: float = 10_000):
        if not coef >= 0:  # nor NaN
            raise ValueError(
                f"kl_coef is {coef}: in the KL controller. It must be 0 or more; 0 switches the penalty off."
            )
        if target is not None and not (target > 0 and horizon > 0):
            raise ValueError(
                f"kl_target is {target} and kl_horizon {horizon}: in the KL controller. Both must be positive; "
                "kl_target=None keeps the coefficient fixed."
            )
        self.coef, self.target, self.horizon = coef, target, horizon

    def update(self, kl: float, n_episodes: int) -> None:
        """Take in the mean KL per sequence (nats) of a rollout of ``n_episodes`` episodes."""
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coef *= 1 + error * n_episodes / self.horizon
