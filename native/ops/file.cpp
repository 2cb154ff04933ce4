// Moving tensors between memory and safetensors files. The header is JSON and is made and checked in
// lib/format/safetensors.ts; here only bytes move.
#include "core/file.h"

#include <algorithm>
#include <cmath>

#include "ops/ops.h"

namespace topknot {
namespace {

constexpr size_t block = 8 << 20;  // between two looks at the abort signal

}  // namespace

namespace ops {

SafetensorsHeader safetensorsHeader(Job&, std::string path) {
  constexpr uint64_t most = 32 << 20;
  const InputFile file(path);
  const int64_t bytes = file.identity().bytes;
  require(bytes >= 10, ErrorCode::format, "path: '", path, "' is no safetensors file: it has only ", bytes, " bytes");
  uint64_t length;
  file.read(0, {reinterpret_cast<char*>(&length), 8});
  require(length <= most && length <= static_cast<uint64_t>(bytes - 8), ErrorCode::format, "path: '", path,
          "' is no safetensors file, or was cut short: its header claims ", std::to_string(length), " bytes of ",
          bytes - 8, " (at most ", most, " are read)");
  Tensor header = Tensor::host<uint8_t>({static_cast<int64_t>(length)});
  file.read(8, {header.data<char>(), length});
  return {{header}, static_cast<double>(8 + length), static_cast<double>(bytes), file.identity().stamp};
}

std::vector<Tensor> safetensorsRead(Job& job, std::string path, std::string stamp, std::vector<FilePart> parts) {
  const InputFile file(path);
  require(file.identity().stamp == stamp, ErrorCode::io, "path: '", path,
          "' was replaced while it was being read; load it again");
  double total = 0, done = 0;
  for (const FilePart& p : parts) total += static_cast<double>(Shape{std::span<const int64_t>(p.shape)}.count());
  std::vector<Tensor> out;
  for (const FilePart& p : parts) {
    const Shape shape{std::span<const int64_t>(p.shape)};
    require(shape.count() <= file.identity().bytes, ErrorCode::format, "path: '", path,
            "' is too short for its tensors");
    Tensor t = Tensor::host(p.dtype, shape);
    char* bytes = static_cast<char*>(t.buffer->data());
    for (size_t at = 0; at < t.bytes(); at += block) {
      job.checkCancelled();
      file.read(p.offset + static_cast<int64_t>(at), {bytes + at, std::min(block, t.bytes() - at)});
      job.progress({done + static_cast<double>(at) / static_cast<double>(sizeOf(p.dtype)), total, std::nan("")});
    }
    if (p.dtype == DType::boolean) {
      require(std::all_of(bytes, bytes + t.bytes(), [](char c) { return c == 0 || c == 1; }), ErrorCode::format,
              "path: '", path, "' has a bool tensor with values other than 0 and 1");
    }
    done += static_cast<double>(t.count());
    out.push_back(std::move(t));
  }
  return out;
}

std::vector<Tensor> safetensorsMap(Job&, std::string path, std::string stamp, std::vector<FilePart> parts,
                                   bool randomAccess) {
  const InputFile file(path);
  require(file.identity().stamp == stamp, ErrorCode::io, "path: '", path,
          "' was replaced while it was being read; load it again");
  std::vector<Tensor> out;
  for (const FilePart& p : parts) {
    const Shape shape{std::span<const int64_t>(p.shape)};
    const int64_t size = static_cast<int64_t>(sizeOf(p.dtype));
    require(p.dtype != DType::boolean, ErrorCode::dtype, "path: bool tensors of '", path,
            "' cannot be mapped, because each byte must be checked: read them with readSafetensors");
    require(shape.count() <= file.identity().bytes, ErrorCode::format, "path: '", path,
            "' is too short for its tensors");
    require(p.offset % size == 0, ErrorCode::format, "path: a tensor of '", path, "' starts at byte ", p.offset,
            ", not at a multiple of its ", size,
            "-byte elements, so it cannot be mapped: read it with readSafetensors "
            "and write it again with writeSafetensors");
    const auto mapping = std::make_shared<FileMapping>(file, p.offset, shape.count() * size, randomAccess);
    Tensor t;
    t.dtype = p.dtype;
    t.shape = shape;
    t.buffer = std::make_shared<Buffer>(mapping->data(), t.bytes(), Device{}, mapping, true);
    out.push_back(std::move(t));
  }
  return out;
}

void safetensorsWrite(Job& job, std::string path, Tensor header, std::vector<Tensor> tensors) {
  for (const Tensor& t : tensors) expect(t, "tensors", t.dtype, -1);
  double total = 0, done = 0;
  for (const Tensor& t : tensors) total += static_cast<double>(t.bytes());
  OutputFile file(path);
  const uint64_t length = header.bytes();
  file.write({reinterpret_cast<const char*>(&length), 8});
  file.write({header.data<char>(), header.bytes()});
  for (const Tensor& t : tensors) {
    const char* bytes = static_cast<const char*>(t.buffer->data());
    for (size_t at = 0; at < t.bytes(); at += block) {
      job.checkCancelled();
      const size_t n = std::min(block, t.bytes() - at);
      file.write({bytes + at, n});
      job.progress({done += static_cast<double>(n), total, std::nan("")});
    }
  }
  job.checkCancelled();
  file.commit();
}

}  // namespace ops
}  // namespace topknot
