"""The base of all settings of recipes, studies and comparisons: unknown keys are errors, old names are read."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from pseudo_labels.errors import read_renamed

_STORED = "stored"


class Settings(BaseModel):
    """Frozen settings that are read from YAML.

    Attributes:
        RENAMED: old key to new key. An old key is read for one release, with a ``RenamedWarning``; in files
            on disk it stays, so that what was made before the renaming still counts as equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        return read_renamed(values, cls.RENAMED) if isinstance(values, Mapping) else values

    @model_serializer(mode="wrap")
    def _with_stored_names(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        values = handler(self)
        if info.context is None or not info.context.get(_STORED):
            return values
        stored = {new: old for old, new in self.RENAMED.items()}
        return {stored.get(name, name): value for name, value in values.items()}

    def stored(self, **choice: Any) -> dict[str, Any]:
        """The settings as JSON values under the names that files on disk have.

        Args:
            choice: ``include`` and ``exclude`` as for pydantic's ``model_dump``, by today's names.
        """
        return self.model_dump(mode="json", context={_STORED: True}, **choice)
