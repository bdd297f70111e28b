from mmfw import PluginInfo, hookimpl

MMFW_PLUGIN = PluginInfo(name="always-slab", hook_api=(1, 0), kind="policy")


@hookimpl
def mmfw_should_shrink_slab(reclaim_context):
    return True
