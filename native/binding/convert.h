// How a C++ type looks in JavaScript: Js<T>::from decodes, Js<T>::to encodes, Js<T>::type is its TypeScript type.
// Structs cross by their TOPKNOT_FIELDS, enums by their TOPKNOT_ENUM.
#pragma once
#include <napi.h>

#include <cmath>
#include <concepts>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "binding/handle.h"
#include "core/csr.h"
#include "core/fields.h"
#include "core/tensor.h"

namespace topknot {

TOPKNOT_ENUM(DType, "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool")
TOPKNOT_FIELDS(Csr, indptr, indices, values, cols)

namespace binding {

/// The argument being decoded, for messages: options.factors.
struct Path {
  const char* name;
  const Path* parent = nullptr;
  const char* hostOperation = nullptr;  // of an argument: the operation, when it takes tensors on the CPU alone

  std::string text() const { return parent ? parent->text() + "." + name : name; }
  const Path& argument() const { return parent ? parent->argument() : *this; }
};

/// "a string 'x'", "NaN", "an array": what the caller passed.
std::string received(Napi::Value value);

template <typename... Parts>
[[noreturn]] void expected(const Path& path, Napi::Value value, const Parts&... parts) {
  fail(ErrorCode::argument, path.text(), ": expected ", parts..., " but received ", received(value));
}

template <typename T>
struct Js;

template <>
struct Js<bool> {
  static bool from(Napi::Value v, const Path& path) {
    if (!v.IsBoolean()) expected(path, v, "a boolean");
    return v.As<Napi::Boolean>();
  }
  static Napi::Value to(Napi::Env env, bool b) { return Napi::Boolean::New(env, b); }
  static std::string type() { return "boolean"; }
};

template <typename T>
requires std::is_floating_point_v<T>
struct Js<T> {
  static T from(Napi::Value v, const Path& path) {
    if (!v.IsNumber()) expected(path, v, "a number");
    return static_cast<T>(v.As<Napi::Number>().DoubleValue());
  }
  static Napi::Value to(Napi::Env env, T x) { return Napi::Number::New(env, x); }
  static std::string type() { return "number"; }
};

template <typename T>
requires std::is_integral_v<T>
struct Js<T> {
  static T from(Napi::Value v, const Path& path) {
    constexpr double limit = 9007199254740991.0;
    const double low = std::is_unsigned_v<T> ? 0 : std::max(-limit, static_cast<double>(std::numeric_limits<T>::min()));
    const double high = std::min(limit, static_cast<double>(std::numeric_limits<T>::max()));
    const double x = v.IsNumber() ? v.As<Napi::Number>().DoubleValue() : std::nan("");
    if (!(x >= low && x <= high) || x != std::floor(x)) expected(path, v, "an integer");
    return static_cast<T>(x);
  }
  static Napi::Value to(Napi::Env env, T x) { return Napi::Number::New(env, static_cast<double>(x)); }
  static std::string type() { return "number"; }
};

/// Of a value that is a string: a short one in a single call of the runtime, where asking for its length is another.
inline std::string stringOf(Napi::Value v) {
  char characters[64];
  constexpr size_t longest = sizeof characters - 5;  // with fewer left, a character may have been cut off
  size_t bytes = 0;
  const bool read = napi_get_value_string_utf8(v.Env(), v, characters, sizeof characters, &bytes) == napi_ok;
  return read && bytes <= longest ? std::string(characters, bytes) : v.As<Napi::String>().Utf8Value();
}

template <>
struct Js<std::string> {
  static std::string from(Napi::Value v, const Path& path) {
    if (!v.IsString()) expected(path, v, "a string");
    return stringOf(v);
  }
  static Napi::Value to(Napi::Env env, const std::string& s) { return Napi::String::New(env, s); }
  static std::string type() { return "string"; }
};

template <HasNames E>
struct Js<E> {
  static E from(Napi::Value v, const Path& path) {
    if (v.IsString()) {
      const std::string given = stringOf(v);
      int i = 0;
      for (const char* name : topknotNames(E{})) {
        if (given == name) return static_cast<E>(i);
        ++i;
      }
    }
    expected(path, v, type());
  }
  static Napi::Value to(Napi::Env env, E e) {
    return Napi::String::New(env, topknotNames(E{})[static_cast<size_t>(e)]);
  }
  static std::string type() {
    std::string out;
    for (const char* name : topknotNames(E{})) out += std::string(out.empty() ? "'" : " | '") + name + "'";
    return out;
  }
};

/// A tensor is an External around its handle; a typed array is copied into a new one-dimensional tensor.
template <>
struct Js<Tensor> {
  static Tensor from(Napi::Value v, const Path& path) {
    if (v.IsExternal()) {
      Tensor tensor = TensorHandle::open(v, path.name);
      const char* operation = path.argument().hostOperation;
      if (operation && tensor.device().kind != Device::cpu) {
        fail(ErrorCode::device, path.text(), ": expected to be on device 'cpu' but is on '",
             topknot::text(tensor.device()), "': ", operation, " is not available there; to('cpu') moves a tensor");
      }
      return tensor;
    }
    if (v.IsTypedArray()) return copyTypedArray(v.As<Napi::TypedArray>(), path.name);
    expected(path, v, "a Tensor or a typed array");
  }
  static Napi::Value to(Napi::Env env, const Tensor& t) { return TensorHandle::wrap(env, t); }
  static std::string type() { return "Handle"; }
};

/// State that a job made: an opaque handle.
template <std::derived_from<Resource> T>
struct Js<std::shared_ptr<T>> {
  static std::shared_ptr<T> from(Napi::Value v, const Path& path) {
    auto resource = std::dynamic_pointer_cast<T>(ResourceHandle::open(v, path.name));
    if (!resource) expected(path, v, "another kind of native object");
    return resource;
  }
  static Napi::Value to(Napi::Env env, std::shared_ptr<T> resource) {
    return ResourceHandle::wrap(env, std::move(resource));
  }
  static std::string type() { return "Resource"; }
};

/// A result that reaches JavaScript as a typed array rather than as a tensor: for small answers.
template <>
struct Js<TypedArray> {
  static Napi::Value to(Napi::Env env, const TypedArray& a) { return toTypedArray(env, a.tensor); }
  static std::string type() { return "TypedArray"; }
};

template <typename T>
struct Js<std::optional<T>> {
  static std::optional<T> from(Napi::Value v, const Path& path) {
    if (v.IsUndefined() || v.IsNull()) return std::nullopt;
    return Js<T>::from(v, path);
  }
  static Napi::Value to(Napi::Env env, const std::optional<T>& x) { return x ? Js<T>::to(env, *x) : env.Undefined(); }
  static std::string type() { return Js<T>::type() + " | undefined"; }
};

template <typename T>
struct Js<std::vector<T>> {
  static std::vector<T> from(Napi::Value v, const Path& path) {
    if (!v.IsArray()) expected(path, v, "an array");
    const Napi::Array array = v.As<Napi::Array>();
    std::vector<T> out;
    out.reserve(array.Length());
    for (uint32_t i = 0; i < array.Length(); ++i) out.push_back(Js<T>::from(array[i], path));
    return out;
  }
  static Napi::Value to(Napi::Env env, const std::vector<T>& items) {
    Napi::Array array = Napi::Array::New(env, items.size());
    for (uint32_t i = 0; i < items.size(); ++i) array[i] = Js<T>::to(env, items[i]);
    return array;
  }
  static std::string type() { return "readonly (" + Js<T>::type() + ")[]"; }
};

/// Members that the object lacks keep the default that the struct gives them.
template <HasFields S>
struct Js<S> {
  static S from(Napi::Value v, const Path& path) {
    if (!v.IsObject()) expected(path, v, "an object");
    const Napi::Object object = v.As<Napi::Object>();
    S out{};
    each([&]<typename T>(const Field<S, T>& f) {
      const Napi::Value value = object.Get(f.name);
      if (!value.IsUndefined()) out.*f.member = Js<T>::from(value, Path{f.name, &path});
    });
    return out;
  }
  static Napi::Value to(Napi::Env env, const S& s) {
    Napi::Object object = Napi::Object::New(env);
    each([&]<typename T>(const Field<S, T>& f) { object.Set(f.name, Js<T>::to(env, s.*f.member)); });
    return object;
  }
  static std::string type() {
    std::string out = "{ ";
    each([&]<typename T>(const Field<S, T>& f) {
      const std::string t = Js<T>::type();
      out += f.name + std::string(t.ends_with("undefined") ? "?: " : ": ") + t + "; ";
    });
    return out + "}";
  }

 private:
  template <typename F>
  static void each(F&& f) {
    std::apply([&](const auto&... field) { (f(field), ...); }, topknotFields(static_cast<S*>(nullptr)));
  }
};

}  // namespace binding
}  // namespace topknot
