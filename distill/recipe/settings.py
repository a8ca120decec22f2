"""The base of all settings of recipes, studies and comparisons: unknown keys are errors, old names are read."""

import warnings
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

from pseudo_labels.errors import RenamedWarning, read_renamed

# Key of the serialisation context. A parameter would not do: pydantic passes only the context down to inner sections.
_STORED = "stored"


class Settings(BaseModel):
    """Frozen settings that are read from YAML.

    Attributes:
        RENAMED: old key to new key. An old key is read for one release, with a ``RenamedWarning``; in files
            on disk it stays, so that what was made before the renaming still counts as equal.
        REMOVED: old key to why it is gone; it is passed over for one release, with a note.
        STORED_ALSO: removed key to the value that files on disk have for it.
        STORED_IF_SET: newer keys, which files on disk do not have where they hold their default: what was made before
            there were such keys still counts as equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    RENAMED: ClassVar[Mapping[str, str]] = {}
    REMOVED: ClassVar[Mapping[str, str]] = {}
    STORED_ALSO: ClassVar[Mapping[str, Any]] = {}
    STORED_IF_SET: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        # A ready object, or something wrong, for which pydantic has a message.
        if not isinstance(values, Mapping):
            return values
        # Before pydantic sees the keys: it refuses those that it does not know.
        removed = [name for name in cls.REMOVED if name in values]
        for name in removed:
            warnings.warn(f"{name!r} is passed over: {cls.REMOVED[name]}", RenamedWarning, stacklevel=2)
        today = read_renamed(values, cls.RENAMED)
        return {name: value for name, value in today.items() if name not in removed}

    @model_serializer(mode="wrap")
    def _with_stored_names(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        values = handler(self)
        # Today's names for people; the old ones only for what is compared with files on disk.
        if info.context is None or not info.context.get(_STORED):
            return values
        # A run compares its settings with those in its manifest. Under new names, every run of an earlier version would
        # count as made differently, and could not be resumed.
        stored = {new: old for old, new in self.RENAMED.items()}
        unset = {name for name in self.STORED_IF_SET if getattr(self, name) == type(self).model_fields[name].default}
        values = {name: value for name, value in values.items() if name not in unset}
        return {stored.get(name, name): value for name, value in values.items()} | dict(self.STORED_ALSO)

    def stored(self, **choice: Any) -> dict[str, Any]:
        """The settings as JSON values under the names that files on disk have.

        Args:
            choice: ``include`` and ``exclude`` as for pydantic's ``model_dump``, by today's names.
        """
        return self.model_dump(mode="json", context={_STORED: True}, **choice)
