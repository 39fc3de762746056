"""A person's last word on a pod template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By which field an item of a list is known, the first that all items of both lists have. Of Kubernetes' own keys
# (patchMergeKey) these are all that this package's template has; ports, which it has not, are replaced.
_KEYS = ("mountPath", "devicePath", "name")
# Of these an item has one of many forms, and two of them are refused (patchStrategy retainKeys).
_WHOLE = "volumes"


def merged(base: Any, change: Any) -> Any:
    """``base`` with ``change`` in it, as a strategic merge patch is applied; neither is altered.

    Mappings are merged key by key, where ``None`` removes one. Lists of items that have a name are merged item by item,
    new ones at the end, but that a volume is replaced; any other list, and any other value, is replaced.
    """
    return _merged(base, change)


def _merged(base: Any, change: Any, *, whole: bool = False) -> Any:
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        result = dict(base)
        for key, value in change.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = _merged(base.get(key), value, whole=key == _WHOLE)
        return result
    if isinstance(base, list) and isinstance(change, list | tuple) and base and (key := _key(base, change)):
        items = {item[key]: item for item in base}
        for item in change:
            items[item[key]] = _merged(None if whole else items.get(item[key]), item)
        return list(items.values())
    if isinstance(change, Mapping):
        return _merged({}, change)
    return [_merged(None, item) for item in change] if isinstance(change, list | tuple) else change


def _key(base: Any, change: Any) -> str | None:
    items = [*base, *change]
    if not all(isinstance(item, Mapping) for item in items):
        return None
    return next((key for key in _KEYS if all(key in item for item in items)), None)
