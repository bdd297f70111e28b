from mmfw import PluginInfo

MMFW_PLUGIN = PluginInfo(name="needs-string", hook_api=(1, 0), needs="ttm")
