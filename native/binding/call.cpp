#include "binding/call.h"

namespace topknot::binding {

std::vector<std::string> parameterNames(const char* prototype) {
  std::vector<std::string> names;
  std::string word, last;
  int depth = 0;
  for (const char* c = prototype; *c; ++c) {
    const bool letter = std::isalnum(static_cast<unsigned char>(*c)) || *c == '_';
    if (letter) {
      word += *c;
      continue;
    }
    if (!word.empty()) last = std::exchange(word, {});
    if (*c == '(' || *c == '<') ++depth;
    const bool end = *c == ')' || *c == '>';
    if ((*c == ',' && depth == 1) || (end && depth == 1)) {
      if (!last.empty()) names.push_back(std::exchange(last, {}));
    }
    if (end) --depth;
  }
  return names;
}

std::string received(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined:
      return "undefined";
    case napi_null:
      return "null";
    case napi_string: {
      const std::string s = value.As<Napi::String>();
      return "'" + (s.size() > 40 ? s.substr(0, 40) + "..." : s) + "'";
    }
    case napi_number:
    case napi_boolean:
    case napi_bigint:
      return value.ToString().Utf8Value();
    case napi_function:
      return "a function";
    default:
      return value.IsArray() ? "an array" : value.IsTypedArray() ? "a typed array of another kind" : "an object";
  }
}

}  // namespace topknot::binding
