#include "block_nbd_handshake.h"

#include <errno.h>
#include <string.h>

#include "util.h"

enum {
	PAYLOAD_MAX = 65536, /* of one reply to an option */
	REPLIES_MAX = 256,   /* in all */
	MIN_BLOCK_MAX = 65536,
	INFO_EXPORT_SIZE = 12,
	INFO_BLOCK_SIZE_SIZE = 14,
};

static void expect(struct nbd_handshake *hs, int expects, size_t need_bytes, uint32_t skip_bytes)
{
	hs->expects = expects;
	hs->in_bytes = 0;
	hs->need_bytes = need_bytes;
	hs->skip_bytes = skip_bytes;
}

/* --- what we say ------------------------------------------------------------------------------------------ */

static uint8_t *begin_option(struct nbd_handshake *hs, uint32_t option, size_t length)
{
	uint8_t *p = nbd_put64(hs->out + hs->out_end, NBD_OPTS_MAGIC);
	hs->option = option;
	hs->out_end += NBD_OPTION_SIZE + length;
	return nbd_put32(nbd_put32(p, option), (uint32_t)length);
}

static void ask_structured(struct nbd_handshake *hs)
{
	begin_option(hs, NBD_OPT_STRUCTURED_REPLY, 0);
	expect(hs, NBD_EXPECT_REPLY, NBD_OPTION_REPLY_SIZE, 0);
}

static void ask_go(struct nbd_handshake *hs)
{
	size_t length = strlen(hs->export_name);
	uint8_t *p = begin_option(hs, NBD_OPT_GO, 4 + length + 2 + 2);
	p = nbd_put32(p, (uint32_t)length);
	memcpy(p, hs->export_name, length);
	p = nbd_put16(p + length, 1); /* one request for information: */
	nbd_put16(p, NBD_INFO_BLOCK_SIZE);
	expect(hs, NBD_EXPECT_REPLY, NBD_OPTION_REPLY_SIZE, 0);
}

static void ask_export_name(struct nbd_handshake *hs)
{
	size_t length = strlen(hs->export_name);
	memcpy(begin_option(hs, NBD_OPT_EXPORT_NAME, length), hs->export_name, length);
	expect(hs, NBD_EXPECT_OLD_EXPORT, NBD_OLD_EXPORT_SIZE, hs->no_zeroes ? 0 : NBD_OLD_EXPORT_ZEROES);
}

/* --- what the server says ----------------------------------------------------------------------------------- */

static int take_greeting(struct nbd_handshake *hs, struct err *err)
{
	uint64_t style = nbd_load64(hs->in + 8);
	uint16_t flags = nbd_load16(hs->in + 16);
	if (nbd_load64(hs->in) != NBD_MAGIC)
		return err_config(err, -EPROTO, "what answers there is not an NBD server");
	if (style == NBD_OLDSTYLE_MAGIC)
		return err_config(err, -EPROTO, "the server speaks the old NBD protocol; newstyle is needed");
	if (style != NBD_OPTS_MAGIC)
		return err_config(err, -EPROTO, "the server's greeting is malformed");

	uint32_t client_flags = flags & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	hs->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	nbd_put32(hs->out + hs->out_end, client_flags);
	hs->out_end += 4;
	/* Before "fixed" newstyle an unknown option ended the connection; so ask only for what always was. */
	if (flags & NBD_FLAG_FIXED_NEWSTYLE)
		ask_structured(hs);
	else
		ask_export_name(hs);
	return 0;
}

static int take_reply(struct nbd_handshake *hs, struct err *err)
{
	uint32_t length = nbd_load32(hs->in + 16);
	hs->reply_type = nbd_load32(hs->in + 12);
	if (nbd_load64(hs->in) != NBD_REP_MAGIC || nbd_load32(hs->in + 8) != hs->option)
		return err_config(err, -EPROTO, "the server's reply to an option is malformed");
	if (length > PAYLOAD_MAX || hs->replies++ >= REPLIES_MAX)
		return err_config(err, -EPROTO, "the server's replies to an option are too long");

	size_t kept = min_u64(length, sizeof(hs->in));
	hs->payload_bytes = length;
	expect(hs, NBD_EXPECT_PAYLOAD, kept, length - (uint32_t)kept);
	return 0;
}

static int set_size_and_flags(struct nbd_handshake *hs, const uint8_t *p, struct err *err)
{
	uint16_t flags = nbd_load16(p + 8);
	hs->export.size_bytes = nbd_load64(p);
	hs->export.flags = flags & NBD_FLAG_HAS_FLAGS ? flags : 0;
	hs->has_export = true;
	if (hs->export.size_bytes > INT64_MAX)
		return err_config(err, -EPROTO, "the server's export is impossibly large");
	return 0;
}

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int set_block_sizes(struct nbd_handshake *hs, const uint8_t *p, struct err *err)
{
	uint32_t min = nbd_load32(p), preferred = nbd_load32(p + 4), max = nbd_load32(p + 8);
	if (!is_power_of_two(min) || min > MIN_BLOCK_MAX || !is_power_of_two(preferred) || preferred < min ||
	    max < min || (max != UINT32_MAX && max % min))
		return err_config(err, -EPROTO, "the server's block sizes %u, %u and %u are impossible", min, preferred,
				  max);
	hs->export.min_block = min;
	hs->export.preferred_block = (uint32_t)max_u64(preferred, 512);
	hs->export.max_block = max;
	return 0;
}

static int take_info(struct nbd_handshake *hs, struct err *err)
{
	size_t size = hs->payload_bytes;
	unsigned type = size >= 2 ? nbd_load16(hs->in) : UINT32_MAX;
	if (hs->option != NBD_OPT_GO || size < 2 || (type == NBD_INFO_EXPORT && size != INFO_EXPORT_SIZE) ||
	    (type == NBD_INFO_BLOCK_SIZE && size != INFO_BLOCK_SIZE_SIZE))
		return err_config(err, -EPROTO, "the server's description of the export is malformed");
	expect(hs, NBD_EXPECT_REPLY, NBD_OPTION_REPLY_SIZE, 0);
	if (type == NBD_INFO_EXPORT)
		return set_size_and_flags(hs, hs->in + 2, err);
	if (type == NBD_INFO_BLOCK_SIZE)
		return set_block_sizes(hs, hs->in + 2, err);
	return 0;
}

static const char *refusal_name(uint32_t type)
{
	if (type == NBD_REP_ERR_POLICY)
		return "the server's policy forbids it";
	if (type == NBD_REP_ERR_INVALID)
		return "the server finds the request invalid";
	if (type == NBD_REP_ERR_PLATFORM)
		return "the server's platform cannot do it";
	if (type == NBD_REP_ERR_TLS_REQD)
		return "the server demands TLS, which vmlet does not speak (reach it over a Unix socket or a tunnel)";
	if (type == NBD_REP_ERR_UNKNOWN)
		return "the server has no such export";
	if (type == NBD_REP_ERR_SHUTDOWN)
		return "the server is shutting down";
	if (type == NBD_REP_ERR_BLOCK_SIZE_REQD)
		return "the server insists on block sizes that it did not tell";
	return "the server refuses";
}

/* With the server's own words, if they can be shown. */
static int refused(const struct nbd_handshake *hs, struct err *err)
{
	char words[200];
	size_t length = min_u64(hs->in_bytes, sizeof(words) - 1);
	for (size_t i = 0; i < length; i++)
		words[i] = (char)(hs->in[i] >= ' ' && hs->in[i] < 0x7f ? hs->in[i] : '?');
	words[length] = '\0';
	return err_config(err, -ECONNREFUSED, "export '%s': %s%s%s%s", hs->export_name, refusal_name(hs->reply_type),
			  length ? " (it says: " : "", words, length ? ")" : "");
}

static int take_structured_answer(struct nbd_handshake *hs, struct err *err)
{
	/* That the server does not have it is fine, that it wants TLS first is not. */
	if (hs->reply_type == NBD_REP_ERR_TLS_REQD)
		return refused(hs, err);
	if (hs->reply_type != NBD_REP_ACK && !(hs->reply_type & NBD_REP_FLAG_ERROR))
		return err_config(err, -EPROTO, "the server's reply to an option is malformed");
	hs->export.structured = hs->reply_type == NBD_REP_ACK;
	ask_go(hs);
	return 0;
}

static int take_go_answer(struct nbd_handshake *hs, struct err *err)
{
	if (hs->reply_type == NBD_REP_INFO)
		return take_info(hs, err);
	if (hs->reply_type == NBD_REP_ERR_UNSUP) {
		ask_export_name(hs);
		return 0;
	}
	if (hs->reply_type & NBD_REP_FLAG_ERROR)
		return refused(hs, err);
	if (hs->reply_type != NBD_REP_ACK || !hs->has_export)
		return err_config(err, -EPROTO, "the server's description of the export is malformed");
	expect(hs, NBD_EXPECT_NOTHING, 0, 0);
	return 1;
}

static int take_old_export(struct nbd_handshake *hs, struct err *err)
{
	int r = set_size_and_flags(hs, hs->in, err);
	expect(hs, NBD_EXPECT_NOTHING, 0, 0);
	return r < 0 ? r : 1;
}

static int take(struct nbd_handshake *hs, struct err *err)
{
	switch (hs->expects) {
	case NBD_EXPECT_GREETING:
		return take_greeting(hs, err);
	case NBD_EXPECT_REPLY:
		return take_reply(hs, err);
	case NBD_EXPECT_PAYLOAD:
		return hs->option == NBD_OPT_GO ? take_go_answer(hs, err) : take_structured_answer(hs, err);
	case NBD_EXPECT_OLD_EXPORT:
		return take_old_export(hs, err);
	case NBD_EXPECT_NOTHING:
		break;
	}
	return 1;
}

/* --- bytes in, bytes out ------------------------------------------------------------------------------------ */

void nbd_handshake_init(struct nbd_handshake *hs, const char *export_name)
{
	hs->export = (struct nbd_export){.min_block = 1, .preferred_block = 4096, .max_block = UINT32_MAX};
	hs->export_name = export_name;
	hs->option = hs->reply_type = 0;
	hs->replies = 0;
	hs->no_zeroes = hs->has_export = false;
	hs->out_begin = hs->out_end = 0;
	expect(hs, NBD_EXPECT_GREETING, NBD_GREETING_SIZE, 0);
}

const void *nbd_handshake_output(const struct nbd_handshake *hs, size_t *ret_bytes)
{
	*ret_bytes = hs->out_end - hs->out_begin;
	return hs->out + hs->out_begin;
}

void nbd_handshake_sent(struct nbd_handshake *hs, size_t bytes)
{
	hs->out_begin += bytes;
	if (hs->out_begin == hs->out_end)
		hs->out_begin = hs->out_end = 0;
}

void *nbd_handshake_room(struct nbd_handshake *hs, size_t *ret_bytes)
{
	if (hs->in_bytes < hs->need_bytes) {
		*ret_bytes = hs->need_bytes - hs->in_bytes;
		return hs->in + hs->in_bytes;
	}
	*ret_bytes = min_u64(hs->skip_bytes, sizeof(hs->skipped));
	return hs->skipped;
}

int nbd_handshake_feed(struct nbd_handshake *hs, size_t bytes, struct err *err)
{
	if (hs->in_bytes < hs->need_bytes)
		hs->in_bytes += bytes;
	else
		hs->skip_bytes -= (uint32_t)bytes;

	/* A reply without a payload is complete with its header; hence the loop. */
	int r = 0;
	while (r == 0 && hs->in_bytes == hs->need_bytes && hs->skip_bytes == 0)
		r = take(hs, err);
	return r;
}

int nbd_handshake_closed(const struct nbd_handshake *hs, struct err *err)
{
	if (hs->expects == NBD_EXPECT_OLD_EXPORT)
		return err_config(err, -ECONNRESET, "the server closed the connection: it may have no export '%s'",
				  hs->export_name);
	return err_config(err, -ECONNRESET, "the server closed the connection while it was set up");
}
