// TOPKNOT_FIELDS(Struct, a, b, c) lets a plain struct cross the binding: it lists the members that JavaScript sees.
#pragma once
#include <tuple>

namespace topknot {

template <typename S, typename T>
struct Field {
  const char* name;
  T S::*member;
};

/// Specialised by TOPKNOT_FIELDS: fields(static_cast<S*>(nullptr)) is a tuple of Field.
template <typename S>
concept HasFields = requires {
  topknotFields(static_cast<S*>(nullptr));
};

/// Specialised by TOPKNOT_ENUM: the text of each choice, in the order of the enum's values from 0.
template <typename E>
concept HasNames = requires {
  topknotNames(E{});
};

}  // namespace topknot

#define TOPKNOT_PARENS ()
#define TOPKNOT_EXPAND(...) TOPKNOT_EXPAND3(TOPKNOT_EXPAND3(TOPKNOT_EXPAND3(__VA_ARGS__)))
#define TOPKNOT_EXPAND3(...) TOPKNOT_EXPAND2(TOPKNOT_EXPAND2(TOPKNOT_EXPAND2(__VA_ARGS__)))
#define TOPKNOT_EXPAND2(...) TOPKNOT_EXPAND1(TOPKNOT_EXPAND1(TOPKNOT_EXPAND1(__VA_ARGS__)))
#define TOPKNOT_EXPAND1(...) __VA_ARGS__
#define TOPKNOT_EACH(S, name, ...) \
  topknot::Field{#name, &S::name} __VA_OPT__(, TOPKNOT_EACH_AGAIN TOPKNOT_PARENS(S, __VA_ARGS__))
#define TOPKNOT_EACH_AGAIN() TOPKNOT_EACH

/// At namespace topknot scope, after the struct.
#define TOPKNOT_FIELDS(S, ...) \
  constexpr auto topknotFields(S*) { return std::make_tuple(TOPKNOT_EXPAND(TOPKNOT_EACH(S, __VA_ARGS__))); }

/// TOPKNOT_ENUM(Metric, "innerProduct", "cosine", "l2"): at namespace topknot scope, after the enum.
#define TOPKNOT_ENUM(E, ...) \
  constexpr auto topknotNames(E) { return std::to_array<const char*>({__VA_ARGS__}); }
