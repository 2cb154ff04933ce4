// Whole files: written beside their place and renamed over it, read with checks that what is there is what was
// looked at. Blocks: call it from a job.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core/job.h"

namespace topknot {

/// Identifies the state of a file, so that two reads can be known to have seen the same one.
struct FileIdentity {
  int64_t bytes = 0;
  std::string stamp;  // device, inode and time of last change
};

/// A regular file opened for reading. Throws ERR_IO when it cannot be opened or is no regular file.
class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;

  const FileIdentity& identity() const { return identity_; }
  /// Fills `out` from `offset`; throws ERR_IO on error and ERR_FORMAT when the file ends first.
  void read(int64_t offset, std::span<char> out) const;

 private:
  std::string path_;
  int fd_;
  FileIdentity identity_;
};

/// Writes a file so that other processes, and a crash, see either the old content or all of the new one: writes to a
/// new file in the same folder, flushes it to the disk, renames it. Unless commit() is reached the new file is removed.
/// A file that is replaced gives its permissions on, and a link stays one: the file that it leads to is replaced.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;

  void write(std::span<const char> bytes);
  void commit();

 private:
  [[noreturn]] void failWith(const char* what, int error) const;
  std::string path_, temporary_;
  int fd_;
};

}  // namespace topknot
