from mmfw import PluginInfo

MMFW_PLUGIN = PluginInfo(name="wrong-kind", hook_api=(1, 0), kind="shrinker")
