"""Results as frozen dataclasses, whose fields are the keys of their JSON, in order."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from augkit.core.json import jsonable


class Record:
    """Base of frozen dataclasses that hold results."""

    def to_mapping(self) -> dict[str, object]:
        """Convert nested records and settings to dicts; estimates and comparisons stay objects."""
        return {field.name: mapped(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Convert the record to plain data for `json.dumps`; NaN becomes None."""
        return jsonable(self.to_mapping())


def mapped(value: Any) -> Any:
    """Return a value whose records and pydantic models are converted to dicts."""
    if isinstance(value, Record):
        return value.to_mapping()
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: mapped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mapped(item) for item in value]
    return value
