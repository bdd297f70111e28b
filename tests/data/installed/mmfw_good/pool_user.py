from mmfw import PluginInfo, hookimpl

MMFW_PLUGIN = PluginInfo(name="pool-user", hook_api=(1, 0), needs=("pool",), kind="workload")


@hookimpl
def pool_gfp_mask(order):
    return 0xCC0 if order < 9 else None
