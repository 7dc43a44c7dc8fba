/* envelope.c and blake2b.c for JavaScript. An envelope is an external value that belongs to the thread that made it. */
#include "arguments.h"
#include "blake2b.h"
#include "envelope.h"

namespace {

napi_value failed(napi_env env) {
  napi_throw_error(env, nullptr, "OpenSSL failed");
  return nullptr;
}

napi_value makeEnvelope(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes encKey = a.bytes(0), hmacKey = a.bytes(1), idKey = a.bytes(2);
  int64_t hashing = a.integer(3);
  if (a.failed) return nullptr;
  if (hashing < ENVELOPE_BY_OPENSSL || hashing > ENVELOPE_IN_LANES) {
    napi_throw_range_error(env, nullptr, "there is no such way of hashing");
    return nullptr;
  }
  if (encKey.length != 0 && encKey.length != 32) {
    napi_throw_range_error(env, nullptr, "the key of AES-256 has 32 bytes");
    return nullptr;
  }
  envelope *made = envelope_new(encKey.length ? encKey.data : nullptr, hmacKey.data, hmacKey.length, idKey.data, idKey.length,
                                static_cast<envelope_hashing>(hashing));
  if (!made) return makeUndefined(env);
  napi_value external;
  napi_create_external(env, made, [](napi_env, void *data, void *) { envelope_free(static_cast<envelope *>(data)); }, nullptr, &external);
  return external;
}

envelope *envelopeOf(Arguments &a) {
  void *data = nullptr;
  if (napi_get_value_external(a.env, a.value(0), &data) != napi_ok || !data) {
    napi_throw_type_error(a.env, nullptr, "an envelope is wanted");
    return nullptr;
  }
  return static_cast<envelope *>(data);
}

napi_value envelopeIdHash(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes data = a.bytes(1), into = a.bytes(2);
  envelope *with = envelopeOf(a);
  if (a.failed || !with) return nullptr;
  if (into.length < ENVELOPE_HASH || !envelope_id_hash(with, data.data, data.length, into.data)) return failed(env);
  return makeUndefined(env);
}

/* Arguments of envelopeSeal and envelopeEncrypt. */
napi_value seal(napi_env env, napi_callback_info info, bool withMac) {
  Arguments a(env, info);
  int64_t type = a.integer(1), nonce = a.bigint(2);
  Bytes head = a.bytes(3), data = a.bytes(4), target = a.bytes(5);
  int64_t offset = a.integer(6);
  envelope *with = envelopeOf(a);
  if (a.failed || !with) return nullptr;
  size_t length = ENVELOPE_HEADER + head.length + data.length;
  if (offset < 0 || static_cast<size_t>(offset) > target.length || target.length - offset < length) {
    napi_throw_range_error(env, nullptr, "the object does not fit the target");
    return nullptr;
  }
  uint8_t *object = target.data + offset;
  if (!envelope_encrypt(with, static_cast<uint8_t>(type), static_cast<uint64_t>(nonce), head.data, head.length, data.data, data.length, object) ||
      (withMac && !envelope_mac(with, object, length, object + ENVELOPE_MAC))) {
    return failed(env);
  }
  return makeNumber(env, static_cast<double>(length));
}

napi_value envelopeSeal(napi_env env, napi_callback_info info) { return seal(env, info, true); }
napi_value envelopeEncrypt(napi_env env, napi_callback_info info) { return seal(env, info, false); }

/* The last argument is left out where the MAC is still to be computed. */
napi_value open(napi_env env, napi_callback_info info, bool macIsGiven) {
  Arguments a(env, info);
  Bytes object = a.bytes(1), target = a.bytes(2), given;
  if (macIsGiven) given = a.bytes(3);
  envelope *with = envelopeOf(a);
  if (a.failed || !with) return nullptr;
  if (object.length < ENVELOPE_HEADER || target.length < object.length - ENVELOPE_HEADER || (macIsGiven && given.length != ENVELOPE_HASH)) {
    napi_throw_range_error(env, nullptr, "the payload does not fit the target");
    return nullptr;
  }
  uint8_t computed[ENVELOPE_HASH];
  if (!macIsGiven && !envelope_mac(with, object.data, object.length, computed)) return failed(env);
  int result = envelope_decrypt(with, object.data, object.length, macIsGiven ? given.data : computed, target.data);
  if (result == 0) return failed(env);
  return makeNumber(env, result < 0 ? -1 : static_cast<double>(object.length - ENVELOPE_HEADER));
}

napi_value envelopeOpen(napi_env env, napi_callback_info info) { return open(env, info, false); }
napi_value envelopeDecrypt(napi_env env, napi_callback_info info) { return open(env, info, true); }

napi_value envelopeClear(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  envelope *with = envelopeOf(a);
  if (with) envelope_messages_clear(with);
  return makeUndefined(env);
}

/* The bytes of element `index` of an array of typed arrays. */
bool elementBytes(napi_env env, napi_value array, uint32_t index, Bytes *bytes) {
  napi_value element;
  napi_typedarray_type type;
  void *data;
  if (napi_get_element(env, array, index, &element) != napi_ok ||
      napi_get_typedarray_info(env, element, &type, &bytes->length, &data, nullptr, nullptr) != napi_ok || type != napi_uint8_array) {
    return false;
  }
  bytes->data = static_cast<uint8_t *>(data);
  return true;
}

/* No pointer is kept from one call to the next: the bytes are told anew each time. */
napi_value envelopeRun(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes slots = a.bytes(1), kinds = a.bytes(2), into = a.bytes(4);
  int64_t count = a.integer(5);
  envelope *with = envelopeOf(a);
  if (a.failed || !with) return nullptr;
  uint32_t used = 0;
  bool fits = count > 0 && count <= ENVELOPE_MESSAGES && slots.length >= static_cast<size_t>(count) && kinds.length >= static_cast<size_t>(count) &&
              into.length == ENVELOPE_MESSAGES * ENVELOPE_HASH;
  for (int64_t i = 0; i < count && fits; i++) {
    Bytes data;
    fits = slots.data[i] < ENVELOPE_MESSAGES && !(used & (1u << slots.data[i])) && kinds.data[i] <= ENVELOPE_MAC_OF_OBJECT &&
           elementBytes(env, a.value(3), static_cast<uint32_t>(i), &data) &&
           envelope_message(with, slots.data[i], static_cast<enum envelope_message>(kinds.data[i]), data.data, data.length);
    if (fits) used |= 1u << slots.data[i];
  }
  if (!fits) {
    envelope_messages_clear(with);
    napi_throw_range_error(env, nullptr, "this cannot be hashed");
    return nullptr;
  }
  uint32_t finished = envelope_run(with, slots.data, static_cast<int>(count), reinterpret_cast<uint8_t(*)[ENVELOPE_HASH]>(into.data));
  return finished ? makeNumber(env, finished) : failed(env);
}

napi_value blake2b256(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  Bytes head = a.bytes(0), data = a.bytes(1), into = a.bytes(2);
  if (a.failed) return nullptr;
  if (into.length != BLAKE2B_HASH) {
    napi_throw_range_error(env, nullptr, "the hash has 32 bytes");
    return nullptr;
  }
  blake2b_256(head.data, head.length, data.data, data.length, into.data);
  return makeUndefined(env);
}

}  // namespace

void registerEnvelope(napi_env env, napi_value exports) {
  defineFunction(env, exports, "blake2b256", blake2b256);
  defineFunction(env, exports, "makeEnvelope", makeEnvelope);
  defineFunction(env, exports, "envelopeIdHash", envelopeIdHash);
  defineFunction(env, exports, "envelopeSeal", envelopeSeal);
  defineFunction(env, exports, "envelopeOpen", envelopeOpen);
  defineFunction(env, exports, "envelopeEncrypt", envelopeEncrypt);
  defineFunction(env, exports, "envelopeDecrypt", envelopeDecrypt);
  defineFunction(env, exports, "envelopeClear", envelopeClear);
  defineFunction(env, exports, "envelopeRun", envelopeRun);
}
