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
  friend class FileMapping;
  std::string path_;
  int fd_;
  FileIdentity identity_;
};

/// Bytes [offset, offset + size) of a file as read-only memory, which is read from the disk when it is first used. The
/// pages may be dropped at any time, so a table may be larger than the memory. One spare page behind the end can be
/// read.
///
/// The size was checked when the file was opened. A file that another process cuts short afterwards takes its pages
/// away: reading them then ends this process with SIGBUS. Replace files by renaming, as OutputFile does; never write
/// into them.
class FileMapping {
 public:
  /// random: reads will be of rows here and there, so the system shall not read ahead.
  FileMapping(const InputFile& file, int64_t offset, int64_t size, bool random);
  ~FileMapping();
  FileMapping(const FileMapping&) = delete;

  void* data() const { return data_; }

 private:
  void* base_;
  size_t length_;
  void* data_;
};

/// Asks the system to fetch mapped bytes all at once, because they will be looked at one after the other now.
void readAhead(const void* data, size_t bytes);

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
