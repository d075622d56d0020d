"""Pictures of the effect of a policy and of each kernel on an image: `python -m augkit.preview`, or `preview`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.preview.render import PreviewResult as PreviewResult
    from augkit.preview.render import PreviewSettings as PreviewSettings
    from augkit.preview.render import preview as preview
    from augkit.preview.subject import Subject as Subject
    from augkit.preview.subject import find_subject as find_subject

__getattr__, __dir__ = lazy(
    __name__,
    {
        "PreviewResult": "render",
        "PreviewSettings": "render",
        "Subject": "subject",
        "find_subject": "subject",
        "preview": "render",
    },
)
