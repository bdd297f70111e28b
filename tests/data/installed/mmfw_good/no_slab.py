from mmfw import PluginInfo, hookimpl

MMFW_PLUGIN = PluginInfo(name="no-slab", hook_api=(1, 0), conflicts=("always-slab",), kind="policy")


@hookimpl
def mmfw_should_shrink_slab():
    return False
