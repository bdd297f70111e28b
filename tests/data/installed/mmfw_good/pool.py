from mmfw import PluginInfo, hookimpl, hookspec

MMFW_PLUGIN = PluginInfo(name="pool", hook_api=(1, 0), kind="shrinker")


class PoolSpec:
    @hookspec(firstresult=True)
    def pool_gfp_mask(self, order, flags):
        """Mask the pool allocates an order with."""


class PoolPlugin:
    @hookimpl
    def mmfw_addhooks(self, pluginmanager):
        pluginmanager.add_hookspecs(PoolSpec)
