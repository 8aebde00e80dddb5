"""Parts of the product replaced for a while: how a rule is switched off."""

from collections.abc import Iterator
from contextlib import contextmanager

Patch = tuple[object, str, object]  # owner (a class or module), name, value


@contextmanager
def mutated(patches: tuple[Patch, ...]) -> Iterator[None]:
    """The product with these parts in place of its own."""
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in patches]
    try:
        for owner, name, value in patches:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def no(*_: object) -> bool:
    """A question whose answer is always no."""
    return False


def yes(*_: object) -> bool:
    """A question whose answer is always yes."""
    return True


def nothing(*_: object) -> None:
    """An action that is left out."""
