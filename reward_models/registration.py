"""`make` turns what names a reward model into one: a name, "module:attr", a folder, a class, any callable."""

import difflib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reward_models.completion import RewardError, RewardModel, excerpt, name_of
from reward_models.trl_style import TRLReward, is_trl_style

# Imported when first asked for: a classifier needs torch, the others do not.
BUILT_IN = {
    "classifier": "reward_models.classifier:Classifier",
    "clip": "reward_models.combine:Clip",
    "distinct_n": "reward_models.lexical:DistinctN",
    "ensemble": "reward_models.ensemble:Ensemble",
    "exact_answer": "reward_models.rules:ExactAnswer",
    "guarded": "reward_models.guarded:Guarded",
    "json": "reward_models.rules:ValidJSON",
    "keywords": "reward_models.rules:Keywords",
    "length": "reward_models.rules:LengthTarget",
    "pattern": "reward_models.rules:Pattern",
    "repetition": "reward_models.lexical:Repetition",
    "rouge_l": "reward_models.lexical:RougeL",
    "sentiment": "reward_models.lexical:Sentiment",
    "vader": "reward_models.lexical:Vader",
    "weighted_sum": "reward_models.combine:WeightedSum",
}
REGISTERED: dict[str, Callable[..., Any]] = {}


def register(name: str, factory: Callable[..., Any]) -> None:
    """Make `make(name, **kwargs)` give `factory(**kwargs)`.

    Args:
        name: a new name, without a colon.
        factory: a class, a function that returns a reward model, or a reward function itself.

    Raises:
        RewardError: the name is taken, or cannot be one.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise RewardError(f"A reward model cannot be named {name!r}. Choose a string without a colon.")
    if name in BUILT_IN or REGISTERED.get(name, factory) is not factory:
        raise RewardError(f"The reward model name {name!r} is taken. Choose another.")
    if not callable(factory):
        raise RewardError(
            f"The factory of reward model {name!r} is {excerpt(factory)}. Give a class or a function."
        )
    REGISTERED[name] = factory


def make(spec: Any, **kwargs: Any) -> RewardModel:
    """Make a reward model.

    Args:
        spec: one of
            - a name, built in or registered: `make("length", target=20)`;
            - "module:attr", the module importable or in the current directory, attr a reward function, a class,
              or a function that returns a reward model: `make("my_rewards:judge")`;
            - the folder of a Hugging Face sequence classifier;
            - a dict of JSON values, its "name" being any of these: `{"name": "length", "target": 20}`;
            - a callable or a class. A function written for TRL, `f(prompts, completions, **columns)`, is
              adapted.
        kwargs: arguments of the class or factory; for a reward function, its further keyword arguments.

    Returns:
        A callable that `score` can call: completions in, one number each out.

    Raises:
        RewardError: nothing of that name (it lists the names), or arguments that do not fit.
    """
    if isinstance(spec, Mapping):
        if "name" not in spec:
            raise RewardError(
                f'The reward model {excerpt(dict(spec))} has no "name". Add one, such as "length".'
            )
        return make(spec["name"], **{key: value for key, value in spec.items() if key != "name"}, **kwargs)
    check_name(spec)
    if isinstance(spec, Path):
        spec = str(spec)
    if not isinstance(spec, str):
        return _instantiate(spec, name_of(spec), kwargs)
    if spec in REGISTERED:
        return _instantiate(REGISTERED[spec], repr(spec), kwargs)
    if spec in BUILT_IN:
        return _instantiate(load_attribute(BUILT_IN[spec]), repr(spec), kwargs)
    if (Path(spec) / "config.json").is_file():
        return make("classifier", model=spec, **kwargs)
    return _instantiate(load_attribute(spec), repr(spec), kwargs)


def check_name(spec: Any) -> None:
    """Raise RewardError for a name by which `make` finds nothing; nothing is imported, nor made."""
    if isinstance(spec, Mapping):
        spec = spec.get("name")
    if not isinstance(spec, str | Path):
        return
    name = str(spec)
    if not (name in REGISTERED or name in BUILT_IN or ":" in name or (Path(name) / "config.json").is_file()):
        raise RewardError(_unknown(name))


def load_attribute(spec: str) -> Any:
    """Import "module:attr" (attr may have dots), looking in the current directory as `python -m` does."""
    module_name, _, path = spec.partition(":")
    if not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise RewardError(
            f'{spec!r} does not name a reward model. Write "module:attr", as in "my_rewards:judge".'
        )
    # A console script has its own folder on sys.path and not the current directory.
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise RewardError(
            f"Reward model {spec!r}: {error}. Install what is missing, or run where {module_name!r} can be "
            f"imported: looked in the current directory {os.getcwd()} and on sys.path."
        ) from error
    except Exception as error:
        raise RewardError(
            f"Reward model {spec!r}: importing {module_name!r} raised {type(error).__name__}: {error}. "
            f"Mend that module."
        ) from error
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        public = [
            name for name, value in vars(module).items() if callable(value) and not name.startswith("_")
        ]
        raise RewardError(
            f"Reward model {spec!r}: module {module_name!r} has no {path!r}.{_closest(path, public)} "
            f"Its callables are {_listing(public)}."
        ) from error


def _instantiate(target: Any, name: str, kwargs: dict[str, Any]) -> RewardModel:
    """Call a class or factory with the arguments; bind them to a reward function; adapt TRL's signature."""
    if not callable(target):
        raise RewardError(
            f"{excerpt(target)} cannot serve as a reward model: it is not callable. Give a name, "
            f'"module:attr", or a callable that takes completions and returns one number for each.'
        )
    made = target
    if inspect.isclass(target) or _is_factory(target, kwargs):
        made = _call(target, name, kwargs)
        if not callable(made):
            raise RewardError(
                f"Reward model {name} made {excerpt(made)}, which is not callable. Return a callable "
                f"that takes completions, or give the class a method __call__(self, completions)."
            )
    elif kwargs:
        _check_arguments(target, name, kwargs)
        made = functools.partial(target, **kwargs)
        functools.update_wrapper(made, target)
    return TRLReward(made) if is_trl_style(made) else made


def _is_factory(function: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a function, given `kwargs`, waits for nothing more: then it makes rewards and is none itself."""
    if not inspect.isroutine(function) or is_trl_style(function):
        return False
    signature = _signature(function)
    if signature is None or {"completions", "completion"} & set(signature.parameters):
        return False
    return not any(
        parameter.kind is parameter.VAR_POSITIONAL
        or (
            parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.default is parameter.empty
            and parameter.name not in kwargs
        )
        for parameter in signature.parameters.values()
    )


def _call(factory: Callable[..., Any], name: str, kwargs: dict[str, Any]) -> Any:
    signature = _signature(factory)
    if signature is not None:
        try:
            signature.bind(**kwargs)
        except TypeError as error:
            raise RewardError(
                f"Reward model {name}: {error}. It takes {_arguments(signature)}; got {_given(kwargs)}."
            ) from error
    try:
        return factory(**kwargs)
    except RewardError:
        raise
    except (TypeError, ValueError) as error:  # mostly an argument of the wrong type
        raise RewardError(
            f"Reward model {name} could not be made with {excerpt(kwargs)}: {type(error).__name__}: {error}."
        ) from error


def _check_arguments(function: Callable[..., Any], name: str, kwargs: dict[str, Any]) -> None:
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind_partial(**kwargs)
    except TypeError as error:
        raise RewardError(
            f"Reward function {name}: {error}. It takes {_arguments(signature)}; got {_given(kwargs)}."
        ) from error


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have none
        return None


def _arguments(signature: inspect.Signature) -> str:
    return (
        ", ".join(str(parameter).split(":")[0] for parameter in signature.parameters.values())
        or "no arguments"
    )


def _given(kwargs: dict[str, Any]) -> str:
    return ", ".join(kwargs) or "none"


def _unknown(spec: str) -> str:
    names = sorted({*BUILT_IN, *REGISTERED})
    return (
        f"There is no reward model named {spec!r}, nor a classifier's folder there.{_closest(spec, names)} "
        f'The names are {", ".join(names)}; or give "module:attr", or a folder with a config.json.'
    )


def _listing(names: list[str], most: int = 20) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more or "none"


def _closest(name: str, names: list[str]) -> str:
    match = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""
