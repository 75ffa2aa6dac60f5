// Package fault is the vocabulary of errors a client may see: each Kind is one
// of the API's error types with its HTTP status and general sentence. It is the
// only place where a status stands beside a meaning.
package fault

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// Kind is one error type of the API.
type Kind struct {
	Type        string // wire name, what official clients choose their error class by
	Status      int    // HTTP status
	Description string // the type's general sentence
}

// The 26 error types of the published API.
var (
	Unknown              = kind("Unknown", 500, "An unknown error occurred")
	Internal             = kind("Internal", 500, "An internal error occurred")
	Unauthorized         = kind("Unauthorized", 401, "The request requires to be authenticated.")
	Forbidden            = kind("Forbidden", 403, "The requested action can't be peform by this resource.")
	PayloadTooLarge      = kind("PayloadTooLarge", 413, "The request payload is too large.")
	InvalidPayload       = kind("InvalidPayload", 400, "The request payload is invalid.")
	UnsupportedMediaType = kind("UnsupportedMediaType", 415, "The request is invalid because the content-type is not supported.")
	MethodNotFound       = kind("MethodNotFound", 405, "The requested method does not exist.")
	ResourceNotFound     = kind("ResourceNotFound", 404, "The requested resource does not exist.")
	InvalidJSONSchema    = kind("InvalidJsonSchema", 400, "The provided JSON schema is invalid.")
	InvalidDataFormat    = kind("InvalidDataFormat", 400, "The provided data doesn't respect the provided JSON schema.")
	InvalidIdentifier    = kind("InvalidIdentifier", 400, "The provided identifier is not valid. An identifier must start with a lowercase letter, be between 2 and 100 characters long and use only alphanumeric characters.")
	RelationConflict     = kind("RelationConflict", 409, "The resource is related with a different resource that the one referenced in the request. This is usually caused when providing two resource identifiers that aren't linked together.")
	ReferenceConstraint  = kind("ReferenceConstraint", 409, "The resource cannot be deleted because it's referenced by another resource")
	ReferenceNotFound    = kind("ReferenceNotFound", 400, "The provided resource reference is missing. This is usually caused when providing an invalid id inside the payload of a request.")
	InvalidQuery         = kind("InvalidQuery", 400, "The provided query is invalid. This is usually caused when providing an invalid parameter for querying a resource.")
	Runtime              = kind("Runtime", 400, "An error happened during the execution of a runtime (bot or integration).")
	AlreadyExists        = kind("AlreadyExists", 409, "The record attempted to be created already exists.")
	RateLimited          = kind("RateLimited", 429, "The request has been rate limited.")
	PaymentRequired      = kind("PaymentRequired", 402, "A payment is required to perform this request.")
	QuotaExceeded        = kind("QuotaExceeded", 403, "The request exceeds the allowed quota. Quotas are a soft limit that can be increased.")
	LimitExceeded        = kind("LimitExceeded", 413, "The request exceeds the allowed limit. Limits are a hard limit that cannot be increased.")
	BreakingChanges      = kind("BreakingChanges", 400, "Request payload contains breaking changes which is not allowed for this resource without a version increment.")
	ResourceLocked       = kind("ResourceLockedConflict", 409, "The resource is being used by another request; try again.")
	ResourceGone         = kind("ResourceGone", 410, "The resource existed and is gone for good.")
	OperationTimeout     = kind("OperationTimeout", 504, "The operation did not finish within its time limit.")
)

// Elsewhere says that another server of the same installation answers the
// request. The published API has no type for it; official clients take it, by
// its status, as the answer of a gateway that found no server.
var Elsewhere = &Kind{"Unknown", 502, "The request reached a server that does not answer it; another one does."}

var kinds []*Kind

func kind(typ string, status int, description string) *Kind {
	k := &Kind{typ, status, description}
	kinds = append(kinds, k)
	return k
}

// Kinds lists every error type in the order of the API's introduction.
func Kinds() []*Kind { return kinds }

// Error is an error whose message is written for the client.
type Error struct {
	Kind     *Kind
	Message  string
	Metadata map[string]any // extra facts for programs, may be nil
	cause    error
}

// New makes an error of kind k. The message names the member or id at fault.
func (k *Kind) New(format string, args ...any) *Error {
	return &Error{Kind: k, Message: fmt.Sprintf(format, args...)}
}

// Wrap is New with a cause, which is logged and never sent.
func (k *Kind) Wrap(cause error, format string, args ...any) *Error {
	e := k.New(format, args...)
	e.cause = cause
	return e
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// From finds the client's error in err's chain. Anything else is a bug or an
// outage: it becomes Internal with a neutral sentence and keeps err as cause.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Internal.Wrap(err, "An internal error occurred")
}

// Is reports whether err is a client error of kind k.
func Is(err error, k *Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == k
}

// Body is an error on the wire: id, code, type and message are what official
// clients read, description and status what the API introduction documents.
type Body struct {
	ID          string         `json:"id"`
	Code        int            `json:"code"`
	Type        string         `json:"type"`
	Message     string         `json:"message"`
	Description string         `json:"description"`
	Status      int            `json:"status"`
	Metadata    map[string]any `json:"metadata,omitempty"`
}

// Body renders e for the wire under a fresh error id.
func (e *Error) Body(now time.Time) Body {
	return Body{NewID(now), e.Kind.Status, e.Kind.Type, e.Message, e.Kind.Description, e.Kind.Status, e.Metadata}
}

// NewID makes an error id: err_, 13 digits of epoch milliseconds, x, 8 upper-case hex digits.
func NewID(now time.Time) string {
	var b [4]byte
	rand.Read(b[:])
	return fmt.Sprintf("err_%013dx%X", now.UnixMilli(), b)
}
