"""Types of option values. Pydantic validates them; the last annotation describes them in --help and errors."""

from typing import Annotated

from annotated_types import Ge, Gt, Lt
from pydantic import FiniteFloat, Strict

Count = Annotated[int, Strict(), Gt(0), "a positive integer"]
Natural = Annotated[int, Strict(), Ge(0), "an integer of at least 0"]
Seed = Annotated[int, Strict(), Ge(0), Lt(2**32), "an integer from 0 to 4294967295"]
Number = Annotated[FiniteFloat, Strict(), "a finite number"]
Positive = Annotated[FiniteFloat, Strict(), Gt(0), "a positive finite number"]
NonNegative = Annotated[FiniteFloat, Strict(), Ge(0), "a finite number of at least 0"]
Share = Annotated[float, Strict(), Ge(0), Lt(1), "a number of at least 0 and below 1"]
Decay = Annotated[float, Strict(), Gt(0), Lt(1), "a number above 0 and below 1"]
Scalar = Annotated[bool, Strict()] | Annotated[int, Strict()] | Number | str | None
Argument = Annotated[
    Scalar | list[Scalar | list[Scalar]], "a number, text, true, false, null, or a list of these"
]  # never a mapping: {class_path: ...} has no meaning here
Arguments = dict[str, Argument]
Label = Annotated[int, Strict()] | str
