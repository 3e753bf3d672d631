"""What people prefer: records, files, the store that collects them, and who rates."""

from reward_models.preferences.records import (
    Comparison,
    Demonstration,
    Origin,
    Ranking,
    Rating,
)

__all__ = ["Comparison", "Demonstration", "Origin", "Ranking", "Rating"]
