from mmfw import PluginInfo

MMFW_PLUGIN = PluginInfo(name="right-name", hook_api=(1, 0), kind="policy")
