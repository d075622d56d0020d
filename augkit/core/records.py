"""Results as frozen dataclasses, whose fields in their order are the keys of their JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from augkit.core.json import jsonable


class Record:
    """Base of frozen dataclasses that hold results."""

    def to_mapping(self) -> dict[str, object]:
        """Records and settings as dicts, all the way down; estimates and comparisons stay objects."""
        return {field.name: mapped(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `json.dumps` takes it; NaN is None."""
        return jsonable(self.to_mapping())


def mapped(value: Any) -> Any:
    """A value with the records and pydantic models in it as dicts."""
    if isinstance(value, Record):
        return value.to_mapping()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: mapped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mapped(item) for item in value]
    return value
