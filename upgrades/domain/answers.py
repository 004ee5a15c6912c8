"""Answers of the start dialog as facts: read strictly, in one place, for the dialog and for a later correction."""

from __future__ import annotations

from datetime import date

from upgrades.domain.condition import Fact, Facts, holds
from upgrades.domain.procedure import Parameter, ParameterType
from upgrades.domain.refusal import BadInput
from upgrades.domain.version import NotAVersion, Version
from upgrades.domain.wording import checked

LONGEST = {ParameterType.TEXT: 4000}  # a text may be a list of hosts (LCA-2); everything else is short
SHORT = 200
LARGEST = 86_400  # a number is a length in seconds so far; none of them lasts longer than a day


def answer_of(parameter: Parameter, stated: str, facts: Facts) -> Fact:
    """The fact that the answer `stated` gives; None for one that may be left out. `BadInput` says what is wrong."""
    text = checked(stated, what=parameter.title, most=LONGEST.get(parameter.type, SHORT))
    if not text:
        needed = parameter.required
        if parameter.required_when is not None:
            needed = holds(parameter.required_when, facts) is not False
        if needed:
            raise BadInput("an answer is needed.", parameter.name)
        return None
    match parameter.type:
        case ParameterType.VERSION:
            try:
                return Version.parse(text).text
            except NotAVersion as mistake:
                raise BadInput(str(mistake), parameter.name) from mistake
        case ParameterType.BOOLEAN:
            if text not in ("true", "false"):
                raise BadInput("choose yes or no.", parameter.name)
            return text == "true"
        case ParameterType.DATE:
            try:
                return date.fromisoformat(text).isoformat()
            except ValueError:
                raise BadInput("write a date as 2026-12-31.", parameter.name) from None
        case ParameterType.NUMBER:
            if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LARGEST):
                raise BadInput(f"write a whole number from 1 to {LARGEST}, digits only.", parameter.name)
            return str(int(text))
        case ParameterType.TEXT:
            return text
