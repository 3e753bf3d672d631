"""Reward models on real preferences, beside baselines and TRL. In work: the command that runs these parts is not here yet."""
