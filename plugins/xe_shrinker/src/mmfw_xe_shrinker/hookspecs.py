"""The hook that the driver publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfw import hookspec

if TYPE_CHECKING:
    from mmfw import ShrinkControl
    from mmfw_xe_shrinker.device import XeDevice


class XeSpec:
    """Decisions of the shrinker that policies may take."""

    @hookspec(firstresult=True)
    def xe_can_backup(self, device: XeDevice, sc: ShrinkControl) -> bool | None:
        """Decide whether a reclaim pass may have objects in use, not only purgeable ones.

        Stands for: drivers/gpu/drm/xe/xe_shrinker.c, ``can_backup`` in xe_shrinker_count() and xe_shrinker_scan().
        Answers: False = neither count nor back up, purgeable objects only, and do not wake the device for it; True =
        as mainline; None = not mine, ask the next. Without ``__GFP_FS`` nothing is backed up, whatever the answer.
        Context: kswapd or direct reclaim; may not sleep, allocate or reclaim.
        Called: once in each count, and once in each scan, which may belong to a count that was answered otherwise.

        Parameters
        ----------
        device : XeDevice
            Whose objects.
        sc : ShrinkControl
            The pass; fields of policies are in its attachments.

        Examples
        --------
        ::

            @hookimpl(optionalhook=True)
            def xe_can_backup(sc):
                hint = attachment(sc, Hint)
                return False if hint is not None and hint.opportunistic_compaction else None

        .. versionadded:: hook API 1
        """
