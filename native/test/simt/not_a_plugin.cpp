// A library without the plugin's entry point, for cuda_loader_test.cpp.
extern "C" __attribute__((visibility("default"))) int topknotNotAPlugin() { return 0; }
