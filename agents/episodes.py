"""Whole episodes as token sequences: what a rollout leaves behind and what the update reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agents import processes
from agents.lm import SequenceBatch
from reward_models import Completion

# The flat arrays that the algorithm fills.
QUANTITIES = ("values", "log_probs", "ref_log_probs", "entropies", "rewards", "advantages", "returns")


@dataclass
class Episode:
    """One prompt and one response.

    Attributes:
        ids: int64, shape [tokens], prompt and response.
        positions: int64, shape [actions], where in ``ids`` the tokens stand that the policy chose.
        log_probs: float32, shape [actions], of those tokens as they were sampled.
        rewards: float32, shape [actions], what the environment gave.
        legal: uint8, shape [actions, ceil(V / 8)], the legal tokens as packed bits; None where all were legal.
        completion: what the reward model judged; None for environments that do not say.
        score: the reward model's verdict, as it came.
        kl: nats, the estimate of KL(policy || reference) over the response.
        group: episodes of one group answer the same prompt; each stands alone where prompts are sampled once.
    """

    ids: np.ndarray
    positions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    legal: np.ndarray | None = None
    completion: Completion | None = None
    score: float = 0.0
    kl: float = 0.0
    group: int = 0


@dataclass
class Minibatch:
    """Whole episodes for one forward pass; all tensors but ``sequences.ids`` have shape [tokens].

    ``n_tokens`` and ``n_episodes`` count the whole minibatch, of which this may be a part: losses divide by one of them.
    ``lengths`` says for each token how many its episode has.
    """

    sequences: SequenceBatch
    old_values: Tensor
    old_log_probs: Tensor
    ref_log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    lengths: Tensor
    n_tokens: int
    n_episodes: int


class EpisodeBuffer:
    """The episodes of one rollout, and one flat array of shape [actions] for each quantity, episode after episode.

    It answers to the names of Stable-Baselines3's ``RolloutBuffer``: ``actions``, ``rewards`` (KL penalty included),
    ``values``, ``log_probs``, ``advantages``, ``returns``, ``episode_starts``; and ``ref_log_probs``, ``entropies`` beside
    them. ``score(...)``-like work is the algorithm's; the buffer only stores, pads and splits.

    Attributes:
        groups: int64, shape [episodes], each episode's ``group``.
        chosen: int64, the numbers of the episodes that the update learns from: all, unless the algorithm says otherwise.
        first: what the first episode's number is, counted over all processes; 0 where there is one.
        all_lengths: int64, the ``lengths`` of all processes' episodes.

    Args:
        n_envs: sub-environments that record at the same time.
        max_length: L of the observations, in tokens.
        vocab_size: V, for unpacking legal-token masks.
        device: of the tensors in minibatches.
    """

    actions: np.ndarray
    values: np.ndarray
    log_probs: np.ndarray
    ref_log_probs: np.ndarray
    entropies: np.ndarray
    rewards: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    episode_starts: np.ndarray

    def __init__(self, n_envs: int, max_length: int, vocab_size: int, device: torch.device | str = "cpu"):
        self.n_envs, self.max_length, self.vocab_size, self.device = n_envs, max_length, vocab_size, device
        self.reset()

    def reset(self) -> None:
        shape = (self.n_envs, self.max_length)
        self.episodes: list[Episode] = []
        self._positions = np.zeros(shape, dtype=np.int64)
        self._log_probs = np.zeros(shape, dtype=np.float32)
        self._rewards = np.zeros(shape, dtype=np.float32)
        self._counts = np.zeros(self.n_envs, dtype=np.int64)
        self._legal: list[list[np.ndarray]] = [[] for _ in range(self.n_envs)]

    # --- while the rollout runs ------------------------------------------------------------------------------------

    def add(
        self,
        rows: np.ndarray,
        positions: np.ndarray,
        log_probs: np.ndarray,
        rewards: np.ndarray,
        legal: np.ndarray | None = None,
    ) -> None:
        """Record one action of each of ``rows``; all arguments have shape [rows] but ``legal``, bool, [rows, V]."""
        step = self._counts[rows]
        self._positions[rows, step] = positions
        self._log_probs[rows, step] = log_probs
        self._rewards[rows, step] = rewards
        self._counts[rows] += 1
        if legal is not None:
            for row, bits in zip(rows, np.packbits(legal, axis=1)):
                self._legal[row].append(bits)

    def finish(self, row: int, ids: np.ndarray, completion: Completion | None, group: int = 0) -> None:
        """The episode of ``row`` has ended with the last recorded action; ``ids`` is its whole sequence."""
        n = self._counts[row]
        legal = np.stack(self._legal[row]) if self._legal[row] else None
        rewards = self._rewards[row, :n].copy()
        self.episodes.append(
            Episode(
                ids=ids,
                positions=self._positions[row, :n].copy(),
                log_probs=self._log_probs[row, :n].copy(),
                rewards=rewards,
                legal=legal,
                completion=completion,
                score=float(rewards.sum()),
                group=group,
            )
        )
        self._counts[row] = 0
        self._legal[row] = []

    def close(self) -> None:
        """The rollout is over: lay out the flat arrays."""
        self.lengths = np.array([len(episode.positions) for episode in self.episodes])
        self.groups = np.array([episode.group for episode in self.episodes])
        self.chosen = np.arange(len(self.episodes))
        self.first, self.all_lengths = processes.rank() * len(self.episodes), processes.together(self.lengths)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.mask = np.arange(self.lengths.max()) < self.lengths[:, None]
        self.actions = np.concatenate([episode.ids[episode.positions] for episode in self.episodes])
        self.sampled_log_probs = np.concatenate([episode.log_probs for episode in self.episodes])
        self.episode_starts = np.zeros(len(self.actions), dtype=bool)
        self.episode_starts[self.offsets[:-1]] = True
        for name in QUANTITIES:
            setattr(self, name, np.zeros(len(self.actions), dtype=np.float32))

    def state(self) -> dict[str, Tensor]:
        """The rollout, once it is over, as named tensors; completions, which no update needs, are left out."""
        arrays = {
            "ids": np.concatenate([episode.ids for episode in self.episodes]),
            "n_ids": np.array([len(episode.ids) for episode in self.episodes]),
            "positions": np.concatenate([episode.positions for episode in self.episodes]),
            "n_positions": self.lengths,
            "sampled_log_probs": self.sampled_log_probs,
            "given_rewards": np.concatenate([episode.rewards for episode in self.episodes]),
            "score": np.array([episode.score for episode in self.episodes]),
            "kl": np.array([episode.kl for episode in self.episodes]),
            "groups": self.groups,
            "chosen": self.chosen,
            **{name: getattr(self, name) for name in QUANTITIES},
        }
        if self.episodes[0].legal is not None:
            arrays["legal"] = np.concatenate([e.legal for e in self.episodes if e.legal is not None])
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Hold the rollout that ``state`` took down; completions are None."""
        self.reset()
        arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
        of_ids = np.cumsum(arrays["n_ids"])[:-1]
        of_positions = np.cumsum(arrays["n_positions"])[:-1]
        split = {
            name: np.split(arrays[name], of_positions)
            for name in ("positions", "sampled_log_probs", "given_rewards", "legal")
            if name in arrays
        }
        for i, ids in enumerate(np.split(arrays["ids"], of_ids)):
            episode = Episode(
                ids=ids,
                positions=split["positions"][i],
                log_probs=split["sampled_log_probs"][i],
                rewards=split["given_rewards"][i],
                legal=split["legal"][i] if "legal" in split else None,
                score=float(arrays["score"][i]),
                kl=float(arrays["kl"][i]),
                group=int(arrays["groups"][i]),
            )
            self.episodes.append(episode)
        self.close()
        for name in ("chosen", *QUANTITIES):
            setattr(self, name, arrays[name])

    # --- layouts ---------------------------------------------------------------------------------------------------

    def padded(self, flat: np.ndarray) -> np.ndarray:
        """A flat array, shape [actions], as one row per episode, shape [episodes, longest], padded with 0."""
        padded = np.zeros(self.mask.shape, dtype=flat.dtype)
        padded[self.mask] = flat
        return padded

    def flat(self, padded: np.ndarray) -> np.ndarray:
        """The inverse of ``padded``."""
        return padded[self.mask]

    def sum_per_episode(self, flat: np.ndarray) -> np.ndarray:
        """Sums over each episode's actions, shape [episodes]."""
        return np.add.reduceat(flat, self.offsets[:-1])

    def spread(self, per_episode: np.ndarray) -> np.ndarray:
        """One number per episode, shape [episodes], for each of its actions, float32, shape [actions]."""
        return np.repeat(per_episode, self.lengths).astype(np.float32)

    def tokens_of(self, indices: np.ndarray) -> np.ndarray:
        """Where in the flat arrays the actions of these episodes stand, in order."""
        nothing = np.arange(0)
        return np.concatenate([nothing, *(np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices)])

    def sequences(self, indices: np.ndarray) -> SequenceBatch:
        """These episodes, right-padded to the longest of them; of none, one token of which nothing is asked."""
        if not len(indices):
            nothing = self._tensor(np.arange(0))
            return SequenceBatch(self._tensor(np.zeros((1, 1), np.int64)), nothing, nothing, nothing)
        episodes = [self.episodes[i] for i in indices]
        ids = np.zeros((len(episodes), max(len(episode.ids) for episode in episodes)), dtype=np.int64)
        for row, episode in enumerate(episodes):
            ids[row, : len(episode.ids)] = episode.ids
        rows = np.repeat(np.arange(len(episodes)), self.lengths[indices])
        columns = np.concatenate([episode.positions for episode in episodes]) - 1
        legal = None
        if episodes[0].legal is not None:
            bits = np.concatenate([episode.legal for episode in episodes if episode.legal is not None])
            legal = self._tensor(np.unpackbits(bits, axis=1, count=self.vocab_size).astype(bool))
        actions = self.actions[self.tokens_of(indices)]
        # The last token of an episode predicts nothing.
        return SequenceBatch(
            self._tensor(ids[:, :-1]), self._tensor(rows), self._tensor(columns), self._tensor(actions), legal
        )

    def in_order_of_length(self, batch_size: int, max_tokens: int | None = None) -> Iterator[np.ndarray]:
        """All episodes once, shortest first, so that a forward pass over ``batch_size`` of them, or ``max_tokens``, pads
        little."""
        lengths = np.array([len(episode.ids) for episode in self.episodes])
        group: list[int] = []
        for i in np.argsort(lengths, kind="stable"):
            if not fits(len(group) + 1, lengths[i], batch_size, max_tokens):
                yield np.array(group)
                group = []
            group.append(int(i))
        yield np.array(group)

    def shuffled(self) -> list[int]:
        """The numbers, over all processes, of the ``chosen`` episodes in random order: that of the first process."""
        is_chosen = np.isin(np.arange(len(self.episodes)), self.chosen)
        chosen = np.flatnonzero(processes.together(is_chosen))
        return processes.of_first(np.random.permutation(chosen).tolist())  # noqa: NPY002  the generator that SB3 seeds

    def minibatches(
        self,
        batch_size: int,
        micro_batch_size: int | None = None,
        order: Sequence[int] | None = None,
        max_tokens: int | None = None,
    ) -> Iterator[list[Minibatch]]:
        """Minibatches of ``batch_size`` whole episodes, each as a list of micro-batches; one epoch, or those in ``order``.

        A minibatch is a uniformly random set of episodes. It is cut into micro-batches of similar length, which spares
        padding and changes nothing else: every loss divides by the tokens of the whole minibatch. ``micro_batch_size``
        limits their episodes, ``max_tokens`` their padded size. Of several processes each is given its own episodes of the
        minibatch, and as many micro-batches as the others, empty ones where it has fewer.
        """
        numbers = np.array(self.shuffled() if order is None else order, dtype=np.int64)
        for start in range(0, len(numbers), batch_size):
            indices = numbers[start : start + batch_size]
            n_tokens = int(self.all_lengths[indices].sum())
            own = indices[(self.first <= indices) & (indices < self.first + len(self.episodes))] - self.first
            lengths = np.array([len(self.episodes[i].ids) for i in own])
            parts = split_by_length(lengths, micro_batch_size, max_tokens)
            parts += [own[:0]] * (processes.largest(len(parts)) - len(parts))
            yield [self._minibatch(own[part], n_tokens, len(indices)) for part in parts]

    def _minibatch(self, indices: np.ndarray, n_tokens: int, n_episodes: int) -> Minibatch:
        tokens = self.tokens_of(indices)
        return Minibatch(
            sequences=self.sequences(indices),
            old_values=self._tensor(self.values[tokens]),
            old_log_probs=self._tensor(self.log_probs[tokens]),
            ref_log_probs=self._tensor(self.ref_log_probs[tokens]),
            advantages=self._tensor(self.advantages[tokens]),
            returns=self._tensor(self.returns[tokens]),
            lengths=self._tensor(np.repeat(self.lengths[indices], self.lengths[indices])),
            n_tokens=n_tokens,
            n_episodes=n_episodes,
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)


def split_by_length(
    lengths: np.ndarray, limit: int | None = None, max_tokens: int | None = None, shortest: float = 0.6
) -> list[np.ndarray]:
    """Groups of indices into ``lengths``, longest first; none holds more than ``limit``, nor, padded, than ``max_tokens``,
    nor sequences shorter than the share ``shortest`` of its longest one: beyond that, padding costs more than another
    forward pass."""
    groups: list[list[int]] = []
    for i in np.argsort(-lengths, kind="stable"):
        longest = lengths[groups[-1][0]] if groups else 0
        if (
            not groups
            or lengths[i] < shortest * longest
            or not fits(len(groups[-1]) + 1, longest, limit, max_tokens)
        ):
            groups.append([])
        groups[-1].append(int(i))
    return [np.array(group) for group in groups]


def fits(n_sequences: int, length: int, limit: int | None, max_tokens: int | None) -> bool:
    """Whether one forward pass may hold so many sequences, padded to ``length`` tokens. One sequence always fits."""
    return n_sequences == 1 or (
        (limit is None or n_sequences <= limit) and (max_tokens is None or n_sequences * length <= max_tokens)
    )
