"""What is asked of a measurement, checked before anything heavy is imported."""

from importlib.util import find_spec

from pydantic import Field

from toxbench.errors import SettingsError, nearest
from toxbench.settings import Frozen

TRAINER, TRAINER_DEFAULT, NOTEBOOK = "trainer", "trainer-default", "notebook"
# What users write after --against -> who trains then.
PEERS = {
    TRAINER: (TRAINER, TRAINER_DEFAULT),
    TRAINER_DEFAULT: (TRAINER_DEFAULT,),
    NOTEBOOK: (NOTEBOOK,),
}


class Shape(Frozen):
    """The size of an encoder."""

    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.hidden}, {self.heads} heads"


class SpeedRequest(Frozen):
    """What to measure besides what is trained.

    Attributes:
        peers: who else trains, without repetition.
        repeats: timed runs of each, in turn.
        shape: random weights of this shape are trained; None: those of the backbone.
    """

    peers: tuple[str, ...] = ()
    repeats: int = Field(3, ge=1)
    shape: Shape | None = None


def speed_request(
    against: tuple[str, ...], repeats: int, shape: tuple[str, ...] | None
) -> SpeedRequest:
    """Check the words of a command line.

    Raises:
        SettingsError: a peer is unknown, or the package that it needs is missing; the shape is
            none.
    """
    for name in against:
        if name not in PEERS:
            raise SettingsError(
                f"--against {name!r}: no peer is called that{nearest(name, PEERS)}; there are "
                f"{', '.join(PEERS)}"
            )
    peers = tuple(dict.fromkeys(peer for name in against for peer in PEERS[name]))
    if {TRAINER, TRAINER_DEFAULT} & {*peers} and find_spec("accelerate") is None:
        raise SettingsError(
            "transformers' Trainer needs the package accelerate: pip install 'toxbench[speed]'"
        )
    return SpeedRequest(peers=peers, repeats=repeats, shape=_shape(shape))


def _shape(words: tuple[str, ...] | None) -> Shape | None:
    if words is None:
        return None
    try:
        hidden, layers, heads = map(int, words)
        shape = Shape(hidden=hidden, layers=layers, heads=heads)
    except ValueError as error:  # pydantic's are ValueErrors as well
        raise SettingsError(
            f"--shape {','.join(words)!r} is not HIDDEN,LAYERS,HEADS, such as 768,12,12"
        ) from error
    if shape.hidden % shape.heads:
        raise SettingsError(f"--shape: {shape.hidden} cannot be shared by {shape.heads} heads")
    return shape
