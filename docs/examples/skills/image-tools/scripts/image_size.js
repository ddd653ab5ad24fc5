'use strict';
// Sizes of images from their first bytes; the whole file is never read.
const fs = require('fs');

const { files } = JSON.parse(fs.readFileSync(0, 'utf8'));
const images = files.map((file) => {
  try {
    return { file, ...size(head(file)) };
  } catch (error) {
    return { file, error: error.message };
  }
});
const failed = images.filter((image) => image.error).length;
console.log(JSON.stringify(failed === images.length && failed > 0 ? { success: false, images } : { images }));

function head(file) {
  const descriptor = fs.openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(256 * 1024);
    return buffer.subarray(0, fs.readSync(descriptor, buffer, 0, buffer.length, 0));
  } finally {
    fs.closeSync(descriptor);
  }
}

function size(bytes) {
  if (bytes.length >= 24 && bytes.toString('latin1', 1, 4) === 'PNG') {
    return { format: 'png', width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
  }
  if (bytes.length >= 10 && /^GIF8[79]a/.test(bytes.toString('latin1', 0, 6))) {
    return { format: 'gif', width: bytes.readUInt16LE(6), height: bytes.readUInt16LE(8) };
  }
  if (bytes.length >= 4 && bytes.readUInt16BE(0) === 0xffd8) {
    return jpeg(bytes);
  }
  throw new Error('not a PNG, JPEG or GIF file');
}

// The size stands in the frame header, behind other segments of any length.
function jpeg(bytes) {
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff; at += 2 + bytes.readUInt16BE(at + 2)) {
    const marker = bytes[at + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      return { format: 'jpeg', width: bytes.readUInt16BE(at + 7), height: bytes.readUInt16BE(at + 5) };
    }
  }
  throw new Error('a JPEG file without a frame header in its first 256 KiB');
}
